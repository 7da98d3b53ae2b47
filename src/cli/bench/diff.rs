//! `doorbell bench diff`.

use std::path::PathBuf;

use clap::Args;

use super::super::{Failure, print};
use crate::bench::{Diff, compare_many, read_report, render_diff, render_many, to_json};

/// Compare two results: two kernels, two hosts, two versions
#[derive(Debug, Args)]
#[command(after_help = "\
Rows are matched by guest, peer, job, notify and complete path, wait, backend, queues, depth and polling window.
Ratios are B to A. docs/results.md explains the table.")]
pub(super) struct DiffArgs {
    /// The first result, written by bench --json: the base of all ratios
    #[arg(value_name = "A.json", required_unless_present = "base")]
    a: Option<PathBuf>,
    /// The second result
    #[arg(value_name = "B.json", required_unless_present = "base")]
    b: Option<PathBuf>,
    /// Compare many runs, for a verdict on each row: the runs to compare with, at least 4; more if there are many rows
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "new", conflicts_with = "a")]
    base: Vec<PathBuf>,
    /// The runs to compare with those of --base: --base a*.json --new b*.json
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "base")]
    new: Vec<PathBuf>,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the comparison; returns the exit code.
pub(super) fn run(args: &DiffArgs) -> Result<u8, Failure> {
    let read =
        |path: &PathBuf| read_report(path).map_err(|error| Failure { code: 4, message: error.to_string() });
    let (Some(a), Some(b)) = (&args.a, &args.b) else {
        let all = |paths: &[PathBuf]| paths.iter().map(read).collect::<Result<Vec<_>, _>>();
        let rows = compare_many(&all(&args.base)?, &all(&args.new)?);
        if rows.is_empty() {
            return Err(Failure::usage("--base and --new have no row in common"));
        }
        let text = if args.json { to_json(&rows) } else { render_many(&rows) + "\n" };
        return print(&text).map(|()| 0);
    };
    let diff = Diff::of(&read(a)?, &read(b)?);
    let text = if args.json { to_json(&diff) } else { render_diff(&diff) + "\n" };
    print(&text).map(|()| 0)
}
