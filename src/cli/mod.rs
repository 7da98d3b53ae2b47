//! The command line: one file per verb.
//!
//! What lives here: flags and their defaults, messages, exit codes. What may not: anything that another program could
//! call without a command line.
//!
//! # Exit codes
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for `run`: the guest powered off, or the user typed Ctrl-A x |
//! | 1 | it failed while it ran: the guest crashed (an instruction that KVM cannot run), a thread died, a bug |
//! | 2 | wrong use: unknown flags, keys or values, numbers out of range |
//! | 3 | the host lacks something: /dev/kvm, a permission, a KVM capability, memory, threads |
//! | 4 | a file is missing, unreadable, in use, or not what it should be (kernel, initrd, disk, control socket) |
//! | 5 | `run`: the guest reset the machine (reboot, or a triple fault), without `--on-reset restart` |
//! | 6 | `run`: the guest's kernel panicked and said so by pvpanic (Linux: CONFIG_PVPANIC_MMIO, module `pvpanic-mmio`) |
//! | 7 | `run`, `bench`: a thread made a system call that its sandbox forbids |
//! | 2v + 1 | `run --debug-exit`: the guest wrote v to port 0x501 (QEMU: isa-debug-exit), modulo 256 |
//! | 128 + n | ended by signal n: 130 for Ctrl-C (SIGINT), 143 for SIGTERM, 129 for SIGHUP |
//!
//! Nothing marks a code as the guest's own: 2v + 1 is always odd, and for v from 4 to 63 it is none of the codes above.
//!
//! A Linux guest that panics without that driver reboots (`panic=-1` in the default command line): 5.

mod bench;
mod check;
mod config_file;
mod ctl;
mod current;
pub mod disk_arg;
mod fio_arg;
mod generate;
mod guest;
mod guest_files;
mod inspect;
mod inspect_text;
mod lesson;
mod observed;
mod out_file;
mod out_place;
mod pins;
mod run;
mod run_values;
mod signals;
mod stats;
mod trace;
mod vfio;

use std::io::Write;
use std::os::fd::AsFd;
use std::panic::catch_unwind;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use strum::VariantNames;

use crate::backend::DiskError;
use crate::host::log;
use crate::host::sandbox::SandboxMode;
use crate::machine::MachineError;
use crate::observe::control::{ControlError, ServeError};
use crate::observe::kernel::EvidenceError;
use crate::virtio::VirtioError;
use crate::vm::VmError;

const EXAMPLES_AND_EXIT_CODES: &str = "\
Examples:
  doorbell check                                        what this host has, what is missing
  doorbell bench                                        the two notifications, by every path
  doorbell guest -- sh -c 'nproc; uname -r'             a command in a Linux guest
  doorbell run --kernel bzImage --initrd initrd --disk path=disk.img --control /tmp/vm
  doorbell inspect /tmp/vm                              what that VM has in KVM

Exit codes:
  0        done; for run: the guest powered off, or Ctrl-A x
  1        failed while running: guest crash, a thread that died, internal error
  2        wrong use: flags, keys, values
  3        the host lacks something: /dev/kvm, a permission, a capability
  4        a file is missing, unreadable, in use, or not what it should be
  5        run: the guest reset the machine (reboot, triple fault)
  6        run: the guest's kernel panicked (pvpanic)
  7        run, bench: a thread made a system call that its sandbox forbids
  2v + 1   run --debug-exit: the guest wrote v to port 0x501; use v from 4 to 63, which give codes without another meaning
  128 + n  ended by signal n (130: Ctrl-C, 143: SIGTERM)";

/// A minimal virtio-blk VMM about the ioeventfd/irqfd dataplane.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version = env!("DOORBELL_VERSION"), after_help = EXAMPLES_AND_EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Bench(Box<bench::BenchArgs>),
    Check(check::CheckArgs),
    Completions(generate::CompletionsArgs),
    Ctl(ctl::CtlArgs),
    Guest(Box<guest::GuestArgs>),
    Inspect(inspect::InspectArgs),
    Lesson(lesson::LessonArgs),
    Man(generate::ManArgs),
    Run(Box<run::RunArgs>),
    Trace(trace::TraceArgs),
    Vfio(vfio::VfioArgs),
}

/// An error: one sentence, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code; see the table at the top of this file.
    pub code: u8,
    /// One sentence: what failed, on what, what to do.
    pub message: String,
}

impl Failure {
    /// Wrong use.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }

    /// The host lacks something.
    pub fn host(message: impl Into<String>) -> Failure {
        Failure { code: 3, message: message.into() }
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Failure {
        let code = match error {
            MachineError::Guest(_) => 1,
            MachineError::Config(_) => 2,
            MachineError::Host(_) => 3,
            MachineError::File { .. } => 4,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<VmError> for Failure {
    fn from(error: VmError) -> Failure {
        let code = match error {
            VmError::Machine(error) => return error.into(),
            VmError::Vfio(error) => return error.into(),
            VmError::Disk(ref error) => disk_code(error),
            VmError::Virtio(VirtioError::Config(_)) | VmError::NoThread { .. } => 2,
            VmError::Vhost(_) => 4,
            VmError::Virtio(_) | VmError::Dataplane(_) => 3,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        let code = match &error {
            ControlError::Gone(_)
            | ControlError::Closed(_)
            | ControlError::TooLong(_)
            | ControlError::Silent(_) => 1,
            ControlError::Refused(refusal) => match refusal.kind.as_str() {
                "usage" => 2,
                "busy" => 4,
                _ => 1,
            },
            _ => 4,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Failure {
        Failure { code: 4, message: error.to_string() }
    }
}

impl From<EvidenceError> for Failure {
    fn from(error: EvidenceError) -> Failure {
        Failure::host(error.to_string())
    }
}

fn disk_code(error: &DiskError) -> u8 {
    match error {
        DiskError::NeedsPath { .. }
        | DiskError::NeedsSize { .. }
        | DiskError::DirectWithoutFile { .. }
        | DiskError::ZeroSize => 2,
        DiskError::Unsupported { .. } | DiskError::NoMemory { .. } => 3,
        _ => 4,
    }
}

/// The program: parses the command line, calls one verb, prints one error.
pub fn main() -> ExitCode {
    log::take_panics();
    signals::ignore_file_size_signal();
    let result = catch_unwind(parse_and_call)
        .unwrap_or_else(|_| Err(Failure { code: 1, message: "a bug in doorbell (see above)".into() }));
    let code = result.unwrap_or_else(|failure| {
        log::say(format_args!("doorbell: {}", failure.message));
        failure.code
    });
    log::finish();
    ExitCode::from(code)
}

fn parse_and_call() -> Result<u8, Failure> {
    let given = Cli::command().try_get_matches();
    let parsed = given.and_then(|given| Ok((Cli::from_arg_matches(&given)?, given)));
    match parsed {
        Ok((cli, given)) => match cli.verb {
            Verb::Bench(args) => bench::run(*args),
            Verb::Check(args) => check::check(&args),
            Verb::Completions(args) => generate::completions(&args, Cli::command()),
            Verb::Ctl(args) => ctl::run(args),
            Verb::Guest(args) => guest::guest(*args, of_verb(&given)),
            Verb::Inspect(args) => inspect::run(args),
            Verb::Lesson(args) => lesson::run(args),
            Verb::Man(args) => generate::man(&args, Cli::command()),
            Verb::Run(args) => match config_file::with_file(*args, of_verb(&given))? {
                Some(args) => run::run(args),
                None => Ok(0),
            },
            Verb::Trace(args) => trace::run(args),
            Verb::Vfio(args) => vfio::run(args),
        },
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            print(&e.render().to_string()).map(|()| 0)
        }
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            log::say(format_args!("{}", e.render()));
            Ok(2)
        }
        Err(e) => Err(Failure::usage(one_sentence(&e.to_string()))),
    }
}

/// What was given after the verb.
fn of_verb(given: &ArgMatches) -> &ArgMatches {
    given.subcommand().map_or(given, |(_, given)| given)
}

/// Prints `text` on standard output.
fn print(text: &str) -> Result<(), Failure> {
    printed(out_file::BlockingWriter(std::io::stdout().as_fd()).write_all(text.as_bytes()))
}

/// The result of a print; a reader that closed the pipe (`| head`) is not a failure.
fn printed(written: std::io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure { code: 1, message: format!("standard output cannot be written: {error}") })
        }
        _ => Ok(()),
    }
}

/// `--sandbox`.
fn parse_sandbox(text: &str) -> Result<SandboxMode, String> {
    text.parse().map_err(|_| format!("use one of {}", SandboxMode::VARIANTS.join(", ")))
}

/// The mode for a run of which `unfit` cannot be confined: what was `asked` for, or on. Whoever asked for what cannot be is told.
fn sandbox_mode(asked: Option<SandboxMode>, unfit: Option<&str>) -> SandboxMode {
    match (asked.unwrap_or_default(), unfit) {
        (SandboxMode::On, Some(flag)) => {
            if asked.is_some() {
                log::warn("sandbox", format_args!("off: {flag} needs what a confined thread may not do"));
            }
            SandboxMode::Off
        }
        (mode, _) => mode,
    }
}

/// clap's message about a wrong command line, without its usage lines.
fn one_sentence(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let kept: Vec<_> =
        lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information")).collect();
    let sentence = kept.join(" ").trim_start_matches("error: ").to_string();
    // Replaces the error texts of Rust's number parsers.
    let number = "use a whole number";
    ["invalid digit found in string", "cannot parse integer from empty string"]
        .into_iter()
        .fold(sentence, |sentence, rust| sentence.replace(rust, number))
}
