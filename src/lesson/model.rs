use std::collections::BTreeSet;

use serde::Deserialize;

use super::claim::{Claim, ClaimError};

/// A lesson, as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lesson {
    /// The place in the list, from 1: that of the file. Not in the file itself.
    #[serde(skip)]
    pub number: usize,
    /// The list's line.
    pub title: String,
    /// The chapter of the book, 1 to 8.
    pub chapter: u8,
    /// What is there and what will be done.
    pub text: String,
    /// The probe's disks.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// What the probe does.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// Instead of disks and steps: a Linux guest in the lab, because kernel functions are counted.
    #[serde(default)]
    pub lab: Option<Lab>,
    /// What is asked before it is done.
    #[serde(rename = "question")]
    pub questions: Vec<Question>,
    /// Why it is so; shown afterwards.
    pub explanation: String,
    /// Where in the source it happens.
    #[serde(default)]
    pub source: Vec<String>,
}

/// A disk of the probe's VM: the keys of `--disk` that matter here, in the same words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// A notify path.
    #[serde(default = "fast_mmio")]
    pub notify: String,
    /// A complete path.
    #[serde(default = "irqfd")]
    pub complete: String,
    /// How interrupts are held.
    #[serde(default = "off")]
    pub moderate: String,
    /// Microseconds that its I/O thread polls before it sleeps.
    #[serde(default)]
    pub poll_us: u32,
    /// Its own I/O thread; else the main loop.
    #[serde(default = "yes")]
    pub iothread: bool,
}

fn fast_mmio() -> String {
    "fast-mmio".into()
}

fn irqfd() -> String {
    "irqfd".into()
}

fn off() -> String {
    "off".into()
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `requests` reads of 512 bytes, `depth` at a time.
    Read,
    /// `requests` stores of `value`, `width` bytes wide, to the notify register of queue 0.
    Store,
    /// Moves the BAR with the notify registers, then `requests` such stores to its old place.
    StoreOldPlace,
    /// Moves the BAR with the notify registers, then `requests` such stores to its new place.
    StoreNewPlace,
    /// Publishes the head of a chain that the queue does not have.
    BadHead,
    /// Publishes more entries than the queue has.
    BadIndex,
}

/// How the driver learns of completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// By the interrupt.
    #[default]
    Interrupt,
    /// By looking at the used ring; it asks for no interrupts.
    Ring,
}

/// One thing that the probe does, counted by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// The first part of its counts' names.
    pub name: String,
    /// What.
    pub action: Action,
    /// Which disk, from 0.
    #[serde(default)]
    pub disk: usize,
    /// How many.
    #[serde(default = "one")]
    pub requests: u32,
    /// Requests in flight.
    #[serde(default = "one")]
    pub depth: u32,
    /// One request and one decision about a kick at a time, as Linux under an application; completions are taken on
    /// interrupts only.
    #[serde(default)]
    pub one_by_one: bool,
    /// Whether the driver accepts EVENT_IDX.
    #[serde(default = "yes")]
    pub event_idx: bool,
    /// A kick for every publication, whatever the device asked for: the number of kicks is then known beforehand.
    #[serde(default)]
    pub always_kick: bool,
    /// How it waits.
    #[serde(default)]
    pub waiting: Waiting,
    /// Masks the vector before every n-th kick, and unmasks it some 100 us later; 0: never.
    #[serde(default)]
    pub mask_every: u32,
    /// Moves the vector before every n-th kick; 0: never.
    #[serde(default)]
    pub move_every: u32,
    /// Moves it without masking it.
    #[serde(default)]
    pub moves_live: bool,
    /// Bytes of a store.
    #[serde(default)]
    pub width: u32,
    /// What is stored.
    #[serde(default)]
    pub value: u64,
}

/// A Linux guest of the lab, and the shell lines whose kernel functions are counted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lab {
    /// Before it is counted: lines for the lab's shell, with the words of scripts/lib/docs/session.sh.
    #[serde(default)]
    pub before: String,
    /// What the guest does while the kernel functions are counted, one line for each step.
    pub steps: Vec<LabStep>,
}

/// One counted line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabStep {
    /// The first part of its counts' names.
    pub name: String,
    /// For the guest's shell.
    pub guest: String,
}

/// What the reader predicts: a number, or one of several answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Question {
    /// The question.
    pub ask: String,
    /// A number is asked for: that of this count.
    #[serde(default)]
    pub count: Option<String>,
    /// What it should be.
    #[serde(default)]
    pub answer: Option<u64>,
    /// How far a prediction, and the count, may be from it.
    #[serde(default)]
    pub within: u64,
    /// One of these is asked for.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Which one is right, from 1.
    #[serde(default)]
    pub right: Option<usize>,
    /// What must be true of the counts for that.
    #[serde(default)]
    pub proof: Vec<ClaimText>,
    /// Given one by one.
    #[serde(default)]
    pub hints: Vec<String>,
}

/// A claim as TOML has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimText(pub Claim);

impl TryFrom<String> for ClaimText {
    type Error = ClaimError;

    fn try_from(text: String) -> Result<ClaimText, ClaimError> {
        text.parse().map(ClaimText)
    }
}

/// Why a lesson cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LessonError {
    /// Not what a lesson looks like.
    #[error("{file}: {source}")]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// It makes no sense.
    #[error("{file}: {why}")]
    Sense {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// There are so many lessons.
    #[error("there is no lesson {number}: they are numbered from 1 to {last}")]
    Number {
        /// What was asked for.
        number: usize,
        /// The last one.
        last: usize,
    },
    /// There are so many broken ones.
    #[error("there is no broken {number}: they are numbered from 1 to {last}")]
    Broken {
        /// What was asked for.
        number: usize,
        /// The last one.
        last: usize,
    },
}

impl Lesson {
    /// Reads lesson `number` from the text of `file`.
    ///
    /// # Errors
    /// [`LessonError::Form`] and [`LessonError::Sense`].
    pub fn parse(number: usize, file: &str, text: &str) -> Result<Lesson, LessonError> {
        let form = |source| LessonError::Form { file: file.into(), source: Box::new(source) };
        let lesson: Lesson = toml::from_str(text).map_err(form)?;
        let lesson = Lesson { number, ..lesson };
        match lesson.wrong() {
            None => Ok(lesson),
            Some(why) => Err(LessonError::Sense { file: file.into(), why }),
        }
    }

    /// What makes no sense in it.
    fn wrong(&self) -> Option<String> {
        if self.lab.is_some() != self.steps.is_empty() || self.lab.is_some() != self.disks.is_empty() {
            return Some("use either [lab], or [[disk]] and [[step]]".into());
        }
        if let Some(step) = self.steps.iter().find(|step| step.disk >= self.disks.len()) {
            return Some(format!("step {}: there is no disk {}", step.name, step.disk));
        }
        let lab = self.lab.iter().flat_map(|lab| lab.steps.iter().map(|step| &*step.name));
        let names: BTreeSet<_> = self.steps.iter().map(|step| &*step.name).chain(lab).collect();
        if self.questions.is_empty() {
            return Some("it has no [[question]]".into());
        }
        self.questions.iter().find_map(|question| question.wrong(&names))
    }
}

impl Question {
    fn wrong(&self, steps: &BTreeSet<&str>) -> Option<String> {
        let numeric = self.count.is_some() && self.answer.is_some() && self.choices.is_empty();
        let choice = self.right.is_some_and(|right| (1..=self.choices.len()).contains(&right))
            && self.count.is_none()
            && !self.proof.is_empty();
        if numeric == choice {
            let why = "use either `count` and `answer`, or `choices`, `right` and `proof`";
            return Some(format!("{:?}: {why}", self.ask));
        }
        let mut counts = self.proof.iter().flat_map(|claim| claim.0.names()).chain(self.count.as_deref());
        let unknown = counts.find(|name| name.split_once('.').is_none_or(|(step, _)| !steps.contains(step)));
        unknown.map(|name| format!("{:?}: there is no step of {name}", self.ask))
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
