//! `doorbell bench`: the same measurement on every path, in turn, in one guest.

mod diff;
mod linux;
mod output;
mod probe;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::disk_arg::nearest;
use super::out_place::FilesInUse;
use super::signals::Signals;
use super::{Failure, parse_sandbox, print};
use crate::bench::linux::LinuxBench;
use crate::bench::probe::ProbeConfig;
use crate::bench::progress::Progress;
use crate::bench::{render, render_html};
use crate::host::log;
use crate::host::sandbox::SandboxMode;
use crate::observe::kernel::{EVIDENCE, KernelEvidence};
use output::Output;

/// Measure every notify path and every complete path, with the built-in probe guest or with fio in Linux
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
The table is described in docs/results.md, the JSON by docs/bench.schema.json.
The probe needs /dev/kvm and nothing else. A Linux guest needs hardware virtualization; where there is none,
./scripts/bench runs it in the lab."
)]
pub struct BenchArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// What drives the disks: the built-in probe, or fio in a Linux guest
    #[arg(long, value_enum, default_value = "probe")]
    guest: Guest,
    /// Write the results as JSON to FILE; - is standard output (the table then goes to standard error)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as one HTML page, which needs nothing else, to FILE; - is standard output
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Check the flags, say what would be measured, and end
    #[arg(long)]
    dry_run: bool,
    /// Count the kernel functions that ran meanwhile, on the whole host, and print them at the end (root)
    #[arg(long)]
    evidence: bool,
    #[command(flatten)]
    common: Common,
    // Options: whether any flag of a group is there tells a flag of the other guest from a default.
    #[command(flatten)]
    probe: Option<probe::ProbeArgs>,
    #[command(flatten)]
    linux: Option<linux::LinuxArgs>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Diff(diff::DiffArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Guest {
    Probe,
    Linux,
}

/// What the flags ask for.
enum Bench {
    Probe(ProbeConfig),
    Linux(LinuxBench),
}

/// Flags of both guests.
#[derive(Debug, Args)]
struct Common {
    /// How often everything is measured, 1 to 1000; below 6 there is no interval, and more comparisons need more [default: 12 with the probe, 10 with Linux]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Longest busy-poll of the polling I/O threads before they sleep, in microseconds, 0 to 1000000; the probe then
    /// measures with and without, and with 0 only without [default: 50 with the probe, 0 with Linux]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    poll_us: Option<u32>,
    /// What the VM's threads may ask of the kernel while the guest runs: on (only what they need; anything else ends the
    /// bench with exit code 7), log (anything, and the kernel logs what they do not need) or off
    #[arg(long, value_name = "HOW", default_value_t, value_parser = parse_sandbox)]
    sandbox: SandboxMode,
    /// auto (a bar on a terminal), lines (one per measurement, on standard error), off
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = |v: &str| named(v, &Progress::NAMES))]
    progress: Progress,
}

/// Measures, prints the table, writes the files; returns the exit code.
pub(super) fn run(args: BenchArgs) -> Result<u8, Failure> {
    if let Some(Verb::Diff(args)) = args.verb {
        return diff::run(&args);
    }
    match args.guest {
        Guest::Probe if args.linux.is_some() => return Err(stray(&linux::LinuxArgs::command(), "linux")),
        Guest::Linux if args.probe.is_some() => return Err(stray(&probe::ProbeArgs::command(), "probe")),
        _ => {}
    }
    // Those of the guest that is measured, if none was given: their defaults.
    let name = [std::ffi::OsString::from("bench")];
    let bench = match args.guest {
        Guest::Probe => {
            let probe = args.probe.unwrap_or_else(|| probe::ProbeArgs::parse_from(name));
            Bench::Probe(probe.bench(&args.common)?)
        }
        Guest::Linux => {
            let linux = args.linux.unwrap_or_else(|| linux::LinuxArgs::parse_from(name));
            Bench::Linux(linux.bench(&args.common)?)
        }
    };
    if args.dry_run {
        let text = match &bench {
            Bench::Probe(bench) => format!("{bench}\n"),
            Bench::Linux(bench) => format!("{bench}\n"),
        };
        return print(&text).map(|()| 0);
    }
    // They end it at once, and no file is left half written.
    let _signals = Signals::take()?;
    // Before minutes of measuring, not after.
    let mut files = FilesInUse::default();
    if let Bench::Linux(bench) = &bench {
        files.input("--kernel", &bench.kernel);
        files.input("--initrd", &bench.initrd);
    }
    let output = Output::prepare(args.json, args.html, &mut files)?;
    let evidence = args.evidence.then(|| KernelEvidence::start(EVIDENCE)).transpose()?;
    let report = match &bench {
        Bench::Probe(bench) => probe::measure(bench, args.common.progress)?,
        Bench::Linux(bench) => crate::bench::linux::run(bench)?,
    };
    let evidence = evidence.map(KernelEvidence::stop).transpose()?;
    output.write(&render(&report), &report, render_html)?;
    if let Some(counts) = evidence {
        log::say(format_args!("{counts}"));
    }
    Ok(0)
}

/// A flag of the guest that is not measured.
fn stray(of_guest: &clap::Command, guest: &str) -> Failure {
    let flags: Vec<_> =
        of_guest.get_arguments().filter_map(|arg| arg.get_long().map(|name| format!("--{name}"))).collect();
    let given = std::env::args().find_map(|word| {
        let word = word.split('=').next().unwrap_or_default().to_string();
        flags.contains(&word).then_some(word)
    });
    let given = given.unwrap_or_else(|| "a flag".into());
    Failure::usage(format!("{given} is for --guest {guest}: add that, or leave {given} out"))
}

fn named<T: Copy>(value: &str, names: &[(&str, T)]) -> Result<T, String> {
    if let Some(&(_, named)) = names.iter().find(|(name, _)| *name == value) {
        return Ok(named);
    }
    let all = names.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let meant =
        nearest(value, all.iter().copied()).map_or(String::new(), |name| format!(" (did you mean {name}?)"));
    Err(format!("it takes one of {}{meant}", all.join(", ")))
}
