//! `doorbell bench diff`.

use std::path::PathBuf;

use clap::Args;

use super::super::{Failure, print};
use crate::bench::{Diff, read_report, render_diff, to_json};

/// Compare two results: two kernels, two hosts, two versions
#[derive(Debug, Args)]
#[command(after_help = "\
Rows are matched by guest, peer, job, notify and complete path, wait, backend, queues, depth and polling window.
Ratios are B to A. docs/results.md tells more.")]
pub(super) struct DiffArgs {
    /// The first result, written by bench --json; ratios are to it
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The second result
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the comparison; returns the exit code.
pub(super) fn run(args: &DiffArgs) -> Result<u8, Failure> {
    let read = |path| read_report(path).map_err(|error| Failure { code: 4, message: error.to_string() });
    let diff = Diff::of(&read(&args.a)?, &read(&args.b)?);
    let text = if args.json { to_json(&diff) } else { render_diff(&diff) + "\n" };
    print(&text).map(|()| 0)
}
