//! `doorbell lesson broken`: doorbell broken on purpose; the source's own script makes the copy in which to find the cause.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::super::{Failure, print};
use crate::lesson::{all_broken, broken};

/// doorbell broken on purpose: see the symptom, find the cause, mend it, and have it judged
#[derive(Debug, Args)]
#[command(after_help = "\
Without a number it lists them. In doorbell's source (or below it) it makes a broken copy in target/broken, which needs cargo;
elsewhere it only says what is seen.")]
pub struct BrokenArgs {
    /// Which one
    number: Option<usize>,
    /// Say whether the copy is mended
    #[arg(long, requires = "number")]
    judge: bool,
}

/// Lists, shows, or hands over to scripts/lesson.
pub(super) fn run(args: &BrokenArgs) -> Result<u8, Failure> {
    let Some(number) = args.number else {
        let line = |one: crate::lesson::Broken| {
            format!("  {}  {} (chapter {})\n", one.number, one.title, one.chapter)
        };
        return print(&all_broken().into_iter().map(line).collect::<String>()).map(|()| 0);
    };
    let one = broken(number)?;
    match script() {
        Some(script) => {
            let judge = args.judge.then_some("--judge");
            let status = Command::new(&script).args(["broken", &number.to_string()]).args(judge).status();
            let cannot = |error| Failure::host(format!("{} cannot be started: {error}", script.display()));
            Ok(status.map_err(cannot)?.code().map_or(1, |code| code as u8))
        }
        None if args.judge => Err(Failure::host(format!(
            "broken {number} is judged in doorbell's source: change to a directory of it"
        ))),
        None => print(&format!(
            "Broken {number}: {}\n\n{}\n\nThink about: {}\n\nIn doorbell's source, the same command makes a copy that is broken \
             in this way.\n",
            one.title, one.symptom, one.look
        ))
        .map(|()| 0),
    }
}

/// scripts/lesson of the source in which the reader is.
fn script() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let root = here.ancestors().find(|directory| directory.join("lessons/broken").is_dir())?;
    Some(root.join("scripts/lesson")).filter(|script| script.is_file())
}
