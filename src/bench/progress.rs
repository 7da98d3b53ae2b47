//! Progress of a run.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use strum::{EnumCount, VariantArray, VariantNames};

use crate::host::named;

use crate::host::log;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumCount, VariantArray, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Progress {
    /// A bar if standard error is a terminal, else nothing.
    #[default]
    Auto,
    /// A line on standard error per step, for logs and pipes.
    Lines,
    /// Nothing.
    Off,
}

impl Progress {
    /// Every kind with its name on the command line.
    pub const NAMES: [(&'static str, Progress); Progress::COUNT] =
        named(<Progress as VariantNames>::VARIANTS, <Progress as VariantArray>::VARIANTS);
}

/// The display on standard error while the bench runs.
#[derive(Debug)]
pub enum Shown {
    /// On a terminal.
    Bar(ProgressBar),
    /// A line per step; the number of steps.
    Lines(usize),
    /// Nothing at all.
    Nothing,
}

impl Shown {
    /// Shows that the guest is being started.
    pub fn new(progress: Progress, steps: usize) -> Shown {
        match progress {
            Progress::Lines => {
                log::say(format_args!("starting the guest"));
                Shown::Lines(steps)
            }
            Progress::Auto if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::new(steps as u64).with_message("starting the guest");
                if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {wide_bar} {pos}/{len} {msg}") {
                    bar.set_style(style);
                }
                bar.tick();
                Shown::Bar(bar)
            }
            _ => Shown::Nothing,
        }
    }

    /// Shows a message that is not a step.
    pub fn note(&self, text: &str) {
        match self {
            Shown::Bar(bar) => bar.set_message(text.to_string()),
            Shown::Lines(_) => log::say(format_args!("{text}")),
            Shown::Nothing => {}
        }
    }

    /// Step `step`, from 0, begins.
    pub fn begin(&self, step: usize, label: &str) {
        if let Shown::Bar(bar) = self {
            bar.set_position(step as u64);
            bar.set_message(label.to_string());
        }
    }

    /// The step has ended; shows `text`.
    pub fn end(&self, step: usize, label: &str, what: Option<String>) {
        match self {
            Shown::Bar(bar) => bar.set_position(step as u64 + 1),
            Shown::Lines(steps) => {
                let what = what.map_or(String::new(), |what| format!(": {what}"));
                log::say(format_args!("{}/{steps} {label}{what}", step + 1));
            }
            Shown::Nothing => {}
        }
    }

    /// Updates the elapsed time.
    pub fn tick(&self) {
        if let Shown::Bar(bar) = self {
            bar.tick();
        }
    }

    /// Removes the display from the terminal.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
