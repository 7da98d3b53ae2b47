//! `doorbell bench`: measures every path in turn, in one guest.

mod diff;
mod linux;
mod output;
mod probe;
mod self_test;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::disk_arg::nearest;
use super::out_place::FilesInUse;
use super::pins::Pins;
use super::signals::Signals;
use super::{Failure, parse_sandbox, print};
use crate::bench::linux::{LinuxBench, PeerSpec};
use crate::bench::pace::Pace;
use crate::bench::probe::ProbeConfig;
use crate::bench::progress::Progress;
use crate::bench::{Look, render, render_html};
use crate::host::log;
use crate::host::sandbox::SandboxMode;
use crate::observe::kernel::{EVIDENCE, KernelEvidence};
use output::Output;

/// Measure every notify path and every complete path, with the built-in probe guest or with fio in Linux
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  doorbell bench --html report.html                            the probe guest: every path
  doorbell bench --filter irqfd --until 2% --max-time 5m       until the ratios are known to 2 %
  doorbell bench --guest linux --fio my.fio                    your job, on three paths
  doorbell bench --guest linux --jobs randread --depths 1,2,...,64 --paths irqfd,signal-msi
  doorbell bench --self-test                                   may its verdicts be trusted here?
  doorbell bench diff --base old*.json --new new*.json

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
    /// Write the results as one self-contained HTML page to FILE; - is standard output
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Every column of the tables, however long their lines become
    #[arg(long)]
    wide: bool,
    /// Check the flags, print what would be measured, and end
    #[arg(long)]
    dry_run: bool,
    /// Count the kernel functions that run meanwhile, on the whole host, and print the counts at the end (root)
    #[arg(long)]
    evidence: bool,
    #[command(flatten)]
    common: Common,
    // Option, because a flag of the other guest is an error and a default is not: `Some` if any flag of the group is given.
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
    /// Rounds, 1 to 1000: how often everything is measured. Below 6, no interval is printed; more comparisons need more rounds [default: 12 with the probe, 10 with Linux]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Measure until the 95 % interval of every ratio lies within this percentage of the ratio, as in 2%; at least 6 rounds,
    /// and at most --rounds [default then: 1000]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    until: Option<f64>,
    /// Start no further measurement after this time, as in 90, 90s or 10m; the results are then marked incomplete
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_time: Option<Duration>,
    /// Longest busy-poll of an I/O thread before it sleeps, in microseconds, 0 to 1000000. The probe measures both with and
    /// without busy-polling; with 0, only without [default: 50 with the probe, 0 with Linux]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    poll_us: Option<u32>,
    /// Restrict the VM's threads to the system calls that they need while the guest runs: on (any other call ends the bench
    /// with exit code 7), log (the kernel logs other calls) or off [default: on, and off with --guest linux and --peer, where a vCPU's thread starts and stops other programs]
    #[arg(long, value_name = "HOW", value_parser = parse_sandbox)]
    sandbox: Option<SandboxMode>,
    /// Measure a path against itself, under two names: fast-mmio+irqfd with the probe, the first of --paths with Linux. A
    /// verdict that says "faster" or "slower" is then false, and the exit code is 1
    #[arg(long, conflicts_with = "peer")]
    self_test: bool,
    /// A reference VMM in the same run, with the same guest: qemu. With --guest linux also cloud-hypervisor, host (fio on this
    /// machine, without a VM), and KIND=FILE to name the program; may be given several times
    #[arg(long, value_name = "KIND[=FILE]")]
    peer: Vec<PeerSpec>,
    /// Host CPUs for the threads, as in vcpu0=2,iothread0=3; without a number, all of that kind: vcpu=2,iothread=3, or 2,3
    /// [default: the scheduler's choice]
    #[arg(long, value_name = "THREAD=CPU,...")]
    pin: Option<Pins>,
    /// Progress: auto (a bar on a terminal), lines (one per measurement, on standard error), off
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = |v: &str| named(v, &Progress::NAMES))]
    progress: Progress,
}

impl Common {
    /// The most rounds there may be.
    fn rounds(&self, default: usize) -> usize {
        self.rounds.map_or(if self.until.is_some() { 1000 } else { default }, usize::from)
    }

    fn pace(&self) -> Pace {
        Pace { until: self.until, max_time: self.max_time, ..Pace::default() }
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    let percent = percent.filter(|percent| (0.1..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "use a percentage from 0.1 to 100, as in 2%".into())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60.0),
        Some(number) if text.ends_with('h') => (number, 3600.0),
        Some(number) => (number, 1.0),
        None => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * factor);
    let seconds = seconds.filter(|seconds| (1.0..=1e6).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "use a time of 1 s or more, as in 90, 90s or 10m".into())
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
    // No flag of this guest was given: the defaults.
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
    // The first one ends the run between two measurements, and what was measured is written. A second one ends it at once.
    let signals = Signals::take()?;
    let stop = match &bench {
        Bench::Probe(bench) => bench.pace.stop.clone(),
        Bench::Linux(bench) => bench.pace.stop.clone(),
    };
    let asked = stop.clone();
    signals.on_end(move |signal| {
        asked.ask(signal);
        true
    });
    // Report an output that cannot be written before measuring for minutes.
    let mut files = FilesInUse::default();
    if let Bench::Linux(bench) = &bench {
        files.input("--kernel", &bench.kernel);
        files.input("--initrd", &bench.initrd);
    }
    let output = Output::prepare(args.json, args.html, &mut files)?;
    let evidence = args.evidence.then(|| KernelEvidence::start(EVIDENCE)).transpose()?;
    let report = match &bench {
        Bench::Probe(bench) => probe::measure(bench, args.common.progress),
        Bench::Linux(bench) => crate::bench::linux::run(bench).map_err(Failure::from),
    };
    let signalled = stop.asked().map(|signal| 128 + signal as u8);
    let report = report.map_err(|failure| Failure { code: signalled.unwrap_or(failure.code), ..failure })?;
    let evidence = evidence.map(KernelEvidence::stop).transpose()?;
    let look = Look { wide: args.wide, bold: output.prints_on_terminal() };
    output.write(&render(&report, look), &report, render_html)?;
    if let Some(counts) = evidence {
        log::say(format_args!("{counts}"));
    }
    if args.common.self_test && signalled.is_none() {
        let verdicts: Vec<_> = report.rows.iter().filter_map(|row| row.verdict.as_deref()).collect();
        log::say(format_args!("self-test: {}", self_test::result(&verdicts)?));
    }
    Ok(signalled.unwrap_or(0))
}

/// The error for a flag of the guest that is not measured.
fn stray(of_guest: &clap::Command, guest: &str) -> Failure {
    let flags: Vec<_> =
        of_guest.get_arguments().filter_map(|arg| arg.get_long().map(|name| format!("--{name}"))).collect();
    let given = std::env::args().find_map(|word| {
        let word = word.split('=').next().unwrap_or_default().to_string();
        flags.contains(&word).then_some(word)
    });
    let given = given.unwrap_or_else(|| "a flag".into());
    Failure::usage(format!("{given} needs --guest {guest}: add that, or leave {given} out"))
}

fn named<T: Copy>(value: &str, names: &[(&str, T)]) -> Result<T, String> {
    if let Some(&(_, named)) = names.iter().find(|(name, _)| *name == value) {
        return Ok(named);
    }
    let all = names.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let meant =
        nearest(value, all.iter().copied()).map_or(String::new(), |name| format!(" (did you mean {name}?)"));
    Err(format!("use one of {}{meant}", all.join(", ")))
}
