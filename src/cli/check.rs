//! `doorbell check`: doorbell's requirements and optional features, and which of them this host has. One line each.

mod hardware;
mod host;
mod kvm;
mod trials;

use clap::Args;
use serde::Serialize;

use super::{Failure, print};

/// Check which of doorbell's requirements and optional features this host has.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 if `doorbell run` can boot Linux here, else 3. With --hardware-report: 0 if all results are as
expected, 1 if not, 3 if nothing could run. docs/hardware.md explains the report."
)]
pub struct CheckArgs {
    /// Print JSON instead (schema doorbell-check/1)
    #[arg(long)]
    json: bool,
    /// Test here what only emulation has shown so far, and print a report (Markdown) to send in. Runs the probe guest about
    /// ten times, and as root also counts kernel functions
    #[arg(long, conflicts_with = "json")]
    hardware_report: bool,
}

/// One line of the check.
#[derive(Clone, Debug, Serialize)]
struct Item {
    /// Its name; programs may rely on it.
    name: &'static str,
    /// Whether `run` needs it.
    needed: bool,
    /// Whether it is present and usable.
    present: bool,
    /// What was found.
    found: String,
    /// What to do if it is absent; `None`: nothing can be done.
    fix: Option<String>,
}

impl Item {
    fn new(name: &'static str, needed: bool, present: bool, found: impl Into<String>) -> Item {
        Item { name, needed, present, found: found.into(), fix: None }
    }

    /// Adds what to do if it is absent.
    fn or(mut self, fix: &str) -> Item {
        if !self.present {
            self.fix = Some(fix.into());
        }
        self
    }

    fn line(&self, width: usize) -> String {
        let mark = match (self.present, self.needed) {
            (true, _) => "present",
            (false, true) => "MISSING",
            (false, false) => "absent",
        };
        let fix = self.fix.as_ref().map_or_else(String::new, |fix| format!("; {fix}"));
        format!("{mark:<7}  {:<width$}  {}{fix}", self.name, self.found)
    }
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    run_works: bool,
    items: Vec<Item>,
}

/// Prints the list; returns the exit code.
pub(super) fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let mut items = kvm::items();
    items.extend(host::items());
    if args.hardware_report {
        let page = hardware::report(&items);
        print(&page.text)?;
        return Ok(match (page.ran, page.otherwise) {
            (0, _) => 3,
            (_, 0) => 0,
            _ => 1,
        });
    }
    let run_works = items.iter().all(|item| item.present || !item.needed);
    if args.json {
        let report = Report { schema: "doorbell-check/1", run_works, items };
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Failure { code: 1, message: format!("check: {e}") })?;
        print(&format!("{text}\n"))?;
    } else {
        let width = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
        let lines: String = items.iter().map(|item| item.line(width) + "\n").collect();
        let sum = match run_works {
            true => "`doorbell run` can boot Linux here.",
            false => "`doorbell run` cannot boot Linux here: see what is MISSING above.",
        };
        print(&format!("{lines}\n{sum}\n"))?;
    }
    Ok(if run_works { 0 } else { 3 })
}

#[cfg(test)]
#[path = "check/check_tests.rs"]
mod tests;
