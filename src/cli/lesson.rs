//! `doorbell lesson`: predict what will be counted, have it counted, and learn why.

mod broken;

use std::fs;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::lesson::{self, Counts, Lesson, LessonError, PlayError, Progress, ProgressError, Question};
use broken::BrokenArgs;

/// Learn by predicting: a lesson starts a VM, asks what will be counted, counts it, and says why.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Without a number it lists the lessons. Most run on any usable /dev/kvm within a second; those of the lab need scripts/lesson,
which starts a Linux guest where kernel functions can be counted. At a question, h is a hint and q ends the lesson.
Progress is kept in $XDG_STATE_HOME/doorbell/lessons.json, or below ~/.local/state.
The exit code is 0 if all answers are right, and 1 if one is wrong."
)]
pub struct LessonArgs {
    #[command(subcommand)]
    broken: Option<BrokenCommand>,
    /// The lesson's number
    number: Option<usize>,
    /// The answer to a question; give it once for each question, in their order. Nothing is asked then
    #[arg(long, value_name = "N", requires = "number")]
    answer: Vec<u64>,
    /// Run every lesson and compare what its file says with what is counted
    #[arg(long, conflicts_with_all = ["number", "answer"])]
    check_all: bool,
    /// Show everything that was counted, too
    #[arg(long, requires = "number")]
    all_counts: bool,
    /// What scripts/lesson counted in the lab
    #[arg(long, value_name = "FILE")]
    lab_counts: Option<PathBuf>,
}

/// The other kind of lesson.
#[derive(Debug, Subcommand)]
enum BrokenCommand {
    Broken(BrokenArgs),
}

impl From<LessonError> for Failure {
    fn from(error: LessonError) -> Failure {
        let code =
            if matches!(error, LessonError::Number { .. } | LessonError::Broken { .. }) { 2 } else { 1 };
        Failure { code, message: error.to_string() }
    }
}

impl From<PlayError> for Failure {
    fn from(error: PlayError) -> Failure {
        let code = if matches!(error, PlayError::Session { .. }) { 3 } else { 1 };
        Failure { code, message: error.to_string() }
    }
}

impl From<ProgressError> for Failure {
    fn from(error: ProgressError) -> Failure {
        Failure { code: 4, message: error.to_string() }
    }
}

/// Lists, runs, or checks.
pub(super) fn run(args: LessonArgs) -> Result<u8, Failure> {
    if let Some(BrokenCommand::Broken(args)) = &args.broken {
        return broken::run(args);
    }
    let lab = args.lab_counts.as_ref().map(|path| {
        let why = |error| Failure { code: 4, message: format!("--lab-counts {}: {error}", path.display()) };
        fs::read_to_string(path).map_err(why)
    });
    let lab = lab.transpose()?;
    match args.number {
        Some(number) => one(&lesson::lesson(number)?, &args, lab.as_deref()),
        None if args.check_all => check_all(lab.as_deref()),
        None => list(),
    }
}

fn list() -> Result<u8, Failure> {
    let progress = Progress::of_the_reader()?;
    let (mut text, mut chapter) = (String::new(), 0);
    for lesson in lesson::all()? {
        if lesson.chapter != chapter {
            chapter = lesson.chapter;
            text += &format!("chapter {chapter}\n");
        }
        let mark = if progress.is_done(&lesson.title) { "done" } else { "" };
        let place = if lesson.lab.is_some() { " (in the lab: scripts/lesson)" } else { "" };
        text += &format!("  {:>2}  {mark:<4}  {}{place}\n", lesson.number, lesson.title);
    }
    print(&text).map(|()| 0)
}

fn counted(lesson: &Lesson, lab: Option<&str>) -> Result<Counts, Failure> {
    match (&lesson.lab, lab) {
        (None, _) => Ok(lesson::play(lesson)?),
        (Some(_), Some(text)) => Ok(lesson::read_counts(text, lesson.number)),
        (Some(_), None) => {
            let number = lesson.number;
            Err(Failure::host(format!(
                "lesson {number} needs a Linux guest in the lab: scripts/lesson {number}"
            )))
        }
    }
}

/// How `run` would be told to make the lesson's disks.
fn disks(lesson: &Lesson) -> String {
    let disk = |disk: &lesson::Disk| {
        let lesson::Disk { notify, complete, moderate, .. } = disk;
        let thread = if disk.iothread { "" } else { ",iothread=none" };
        let poll = if disk.poll_us > 0 {
            format!("   its thread polls for {} us", disk.poll_us)
        } else {
            String::new()
        };
        format!(
            "  --disk backend=null,size=64M,notify={notify},complete={complete},moderate={moderate}{thread}{poll}\n"
        )
    };
    lesson.disks.iter().map(disk).collect()
}

fn one(lesson: &Lesson, args: &LessonArgs, lab: Option<&str>) -> Result<u8, Failure> {
    let (answers, asked) = (&args.answer, lesson.questions.len());
    if !answers.is_empty() && answers.len() != asked {
        return Err(Failure::usage(format!(
            "--answer: lesson {} takes one for each question, {asked} in all",
            lesson.number
        )));
    }
    if lesson.lab.is_some() && lab.is_none() {
        counted(lesson, lab)?;
    }
    let Lesson { number, title, text, .. } = lesson;
    print(&format!("Lesson {number}: {title}\n\n{}\n\n{}", text.trim(), disks(lesson)))?;
    let mut said = Vec::new();
    for (n, question) in lesson.questions.iter().enumerate() {
        print(&format!("\n{}\n{}", question.ask, choices(question)))?;
        match answers.get(n) {
            Some(&answer) => said.push(answer),
            None => match predict(question)? {
                Some(answer) => said.push(answer),
                None => return Ok(1),
            },
        }
    }
    let counts = counted(lesson, lab)?;
    let mut all_right = true;
    for (question, said) in lesson.questions.iter().zip(said) {
        let why =
            |error: lesson::ClaimError| Failure { code: 1, message: format!("lesson {number}: {error}") };
        let mark = lesson::mark(question, said, &counts).map_err(why)?;
        all_right &= mark.right;
        let verdict = if mark.right { "right" } else { "not so" };
        print(&format!("\n{verdict}: you said {said}; counted: {}\n", mark.counted))?;
    }
    print(&format!("\n{}\n", lesson.explanation.trim()))?;
    if !lesson.source.is_empty() {
        print(&format!("\nin the source: {}\n", lesson.source.join(", ")))?;
    }
    if args.all_counts {
        let lines: String = counts.iter().map(|(name, count)| format!("  {name:<32} {count}\n")).collect();
        print(&format!("\n{lines}"))?;
    }
    let wrong = lesson::check(lesson, &counts);
    if !wrong.is_empty() {
        print(&format!(
            "\nThe counts on this host differ from those that this lesson expects: {}\n",
            wrong.join("; ")
        ))?;
    }
    if all_right {
        Progress::of_the_reader()?.done(title)?;
    }
    Ok(u8::from(!all_right))
}

fn choices(question: &Question) -> String {
    (1..).zip(&question.choices).map(|(n, text)| format!("  {n}  {text}\n")).collect()
}

/// Reads a prediction; `None`: the reader left.
fn predict(question: &Question) -> Result<Option<u64>, Failure> {
    let (stdin, mut hints) = (std::io::stdin(), question.hints.iter());
    let last = question.choices.len() as u64;
    loop {
        if stdin.is_terminal() {
            print("your prediction: ")?;
        }
        let mut line = String::new();
        let read = stdin.lock().read_line(&mut line);
        if read.map_err(|e| Failure { code: 1, message: format!("the prediction cannot be read: {e}") })? == 0
        {
            return Ok(None);
        }
        match (line.trim(), line.trim().parse::<u64>()) {
            ("q", _) => return Ok(None),
            ("h", _) => {
                print(&format!("{}\n", hints.next().map_or("there are no more hints", String::as_str)))?
            }
            (_, Ok(number)) if last == 0 || (1..=last).contains(&number) => return Ok(Some(number)),
            _ if last > 0 => print(&format!("a number from 1 to {last}, h for a hint, q to leave\n"))?,
            _ => print("a number, h for a hint, q to leave\n")?,
        }
    }
}

fn check_all(lab: Option<&str>) -> Result<u8, Failure> {
    let (mut proved, mut skipped, mut wrong) = (0, 0, 0);
    for lesson in lesson::all()? {
        let (number, title) = (lesson.number, &lesson.title);
        if lesson.lab.is_some() && lab.is_none() {
            print(&format!(
                "skipped: lesson {number} ({title}): needs the lab: scripts/lesson --check-all\n"
            ))?;
            skipped += 1;
            continue;
        }
        let found = lesson::check(&lesson, &counted(&lesson, lab)?);
        if found.is_empty() {
            proved += 1;
        } else {
            wrong += 1;
            print(&format!("wrong: lesson {number} ({title}): {}\n", found.join("; ")))?;
        }
    }
    print(&format!("lessons: {proved} proved, {wrong} wrong, {skipped} skipped\n"))?;
    Ok(u8::from(wrong > 0))
}
