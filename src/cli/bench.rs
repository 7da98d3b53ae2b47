//! `doorbell bench`: the same measurement on every path, in turn, in one guest.

mod linux;
mod output;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::bench::render;
use output::Output;

/// Compare the ways of ringing there and back.
#[derive(Debug, Args)]
#[command(after_help = "\
The table is described in docs/results.md, the JSON by docs/bench.schema.json.
Where there is no hardware virtualization, ./scripts/bench runs this in the lab.")]
pub struct BenchArgs {
    /// What drives the disks: fio in a Linux guest
    #[arg(long, value_enum)]
    guest: Guest,
    /// Write the results as JSON to FILE; - is standard output (the table then goes to standard error)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Check the flags, say what would be measured, and end
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    linux: linux::LinuxArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Guest {
    Linux,
}

/// Measures, prints the table, writes the JSON; answers the exit code.
pub(super) fn run(args: BenchArgs) -> Result<u8, Failure> {
    match args.guest {
        Guest::Linux => {
            let bench = args.linux.bench()?;
            if args.dry_run {
                println!("{bench}");
                return Ok(0);
            }
            // Before minutes of measuring, not after.
            let output = Output::prepare(args.json)?;
            let report = crate::bench::linux::run(&bench)?;
            output.write(&render(&report), &report)?;
        }
    }
    Ok(0)
}
