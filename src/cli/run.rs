//! `doorbell run`: one guest on the serial console.

use std::path::{Path, PathBuf};

use clap::Args;

use super::disk_arg::parse_size;
use super::observed::ObserveArgs;
use super::out_file::OutFile;
use super::out_place::FilesInUse;
use super::signals::Signals;
use super::stats::StatsFile;
use super::{Failure, parse_sandbox, vfio};
use crate::host::sandbox::{Right, SandboxMode};
use crate::machine::layout::{MIB, RAM_MAX, RAM_MIN, VCPUS_MAX};
use crate::machine::{Console, ExitReason, HugePage, Kernel, MachineConfig, RamBacking};
use crate::vfio::VfioSpec;
use crate::vm::DiskConfig;
use crate::vm::{SandboxConfig, ThreadConfig, Vm, VmConfig};

/// The default kernel command line.
const CMDLINE: &str = "console=ttyS0 panic=-1";

/// Exit code of a run that the guest ended by a reset.
const RESET: u8 = 5;
/// Exit code of a run whose guest panicked.
const PANICKED: u8 = 6;

/// Boot a guest on the serial console.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal every key goes to the guest, Ctrl-C included; Ctrl-A x ends the run, Ctrl-A Ctrl-A is Ctrl-A.
A guest that powers off ends the run with exit code 0, one that reboots with 5, one whose kernel panics and has the
pvpanic driver with 6; see `doorbell --help` for the others.")]
pub struct RunArgs {
    /// Linux bzImage, or an ELF image with a PVH entry (vmlinux)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Initial ramdisk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line, instead of the default
    #[arg(long, value_name = "STRING", default_value = CMDLINE)]
    cmdline: String,
    /// vCPUs, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(VCPUS_MAX)))]
    cpus: u8,
    /// Guest RAM, 128M to 8G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_memory)]
    memory: u64,
    /// Back guest RAM with huge pages of this size, 2M or 1G, which must be reserved (nr_hugepages)
    #[arg(long, value_name = "SIZE", value_parser = parse_huge_page)]
    hugepages: Option<HugePage>,
    /// Allocate every page of guest RAM before the guest runs
    #[arg(long)]
    prefault: bool,
    /// Serial console: stdio, file=F (output only) or off
    #[arg(long, value_name = "WHERE", default_value = "stdio", value_parser = parse_console)]
    console: Console,
    /// A disk; may be given several times. Its keys and values:
    ///   path=FILE (a regular file or a block device), readonly, backend=io_uring|sync|null|mem, size=SIZE, direct,
    ///   queues=N, queue-size=N, iothread=K|auto|none, notify=fast-mmio|mmio|pio|exit,
    ///   complete=auto|irqfd|signal-msi|irq-line|resample, event-idx=on|off,
    ///   notification-data=on|off, vhost-user=SOCKET,
    ///   moderate=auto|off|N:US, serial=S; a comma in a value is written twice
    #[arg(long = "disk", value_name = "KEY=VALUE,...", verbatim_doc_comment)]
    disks: Vec<DiskConfig>,
    /// A device of the host that is bound to vfio-pci (see `doorbell vfio`); may be given several times. Its interrupts
    /// stay in the kernel (irq=kernel, the default) or go through the VMM (irq=user)
    #[arg(long, value_name = "BDF[,irq=kernel|user]")]
    vfio: Vec<VfioSpec>,
    /// I/O threads, 1 to 16; the queues of disks with iothread=auto are spread over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    iothreads: u8,
    /// Longest busy-poll of an I/O thread before it sleeps, in microseconds
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    poll_us: u32,
    /// Write each disk's counts (requests, kicks and interrupts by path) to FILE as JSON when the run ends
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// What the threads may ask of the kernel while the guest runs: on (only what they need; anything else ends the run
    /// with exit code 7), log (anything, and the kernel logs what they do not need) or off
    #[arg(long, value_name = "HOW", default_value_t, value_parser = parse_sandbox)]
    sandbox: SandboxMode,
    #[command(flatten)]
    observe: ObserveArgs,
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).ok_or("use a number with M or G: 512M, 2G")?;
    let plain = text.bytes().all(|c| c.is_ascii_digit());
    if plain && bytes < RAM_MIN {
        return Err(format!("the unit is missing: did you mean {text}M? {text} alone is a number of bytes"));
    }
    if !(RAM_MIN..=RAM_MAX).contains(&bytes) || !bytes.is_multiple_of(MIB) {
        return Err("use 128M to 8G, in whole MiB".into());
    }
    Ok(bytes)
}

fn parse_huge_page(text: &str) -> Result<HugePage, String> {
    match parse_size(text) {
        Some(size) if size == HugePage::TwoMib.bytes() => Ok(HugePage::TwoMib),
        Some(size) if size == HugePage::OneGib.bytes() => Ok(HugePage::OneGib),
        _ => Err("use 2M or 1G".into()),
    }
}

fn parse_console(text: &str) -> Result<Console, String> {
    match text.split_once('=') {
        None if text == "stdio" => Ok(Console::Stdio),
        None if text == "off" => Ok(Console::Off),
        Some(("file", path)) if !path.is_empty() => Ok(Console::File(path.into())),
        _ => Err("use stdio, file=FILE or off".into()),
    }
}

/// What the threads still need by name at the end of the run.
fn late_files(outputs: &[Option<&Path>], observe: &ObserveArgs) -> Vec<(PathBuf, Right)> {
    let results = outputs.iter().flatten().map(|directory| ((*directory).into(), Right::Replace));
    results.chain(observe.late_files()).collect()
}

/// Runs the guest to its end; returns the exit code.
pub(super) fn run(args: RunArgs) -> Result<u8, Failure> {
    let signals = Signals::take()?;
    if let Some(twice) =
        args.vfio.iter().enumerate().find_map(|(n, spec)| {
            args.vfio[..n].iter().any(|other| other.bdf == spec.bdf).then_some(spec.bdf)
        })
    {
        return Err(Failure::usage(format!("--vfio {twice} is given twice; leave one out")));
    }
    let mut files = FilesInUse::default();
    files.input("--kernel", &args.kernel);
    args.initrd.iter().for_each(|path| files.input("--initrd", path));
    args.disks
        .iter()
        .filter_map(|disk| disk.options.path.as_ref())
        .for_each(|path| files.input("--disk", path));
    if let Console::File(path) = &args.console {
        files.output("--console", path)?;
    }
    args.stats.as_ref().map_or(Ok(()), |path| files.output("--stats", path))?;
    let stats = args.stats.as_deref().map(StatsFile::open).transpose()?;
    let trace = args.observe.open_trace(&mut files)?;
    let config = VmConfig {
        machine: MachineConfig {
            kernel: Kernel::File(args.kernel),
            initrd: args.initrd,
            cmdline: args.cmdline,
            cpus: args.cpus,
            memory: args.memory,
            console: args.console,
            vcpu_pins: Vec::new(),
            host_tsc: false,
            backing: RamBacking { huge: args.hugepages, prefault: args.prefault, shared: false },
        },
        disks: args.disks,
        threads: vec![
            ThreadConfig { poll_max_ns: u64::from(args.poll_us) * 1000, cpu: None };
            args.iothreads.into()
        ],
        sandbox: SandboxConfig {
            mode: args.sandbox,
            files: late_files(
                &[stats.as_ref().and_then(StatsFile::directory), trace.as_ref().and_then(OutFile::directory)],
                &args.observe,
            ),
        },
    };
    let mut assembly = Vm::new(config)?;
    for spec in args.vfio {
        assembly.add_vfio(spec)?;
    }
    let exit = assembly.machine().exit_latch();
    signals.on_continue(assembly.machine().console_waker());
    // No listener yet: while a kernel is read, a signal ends the process at once.
    signals.on_end(move |signal| {
        exit.request(ExitReason::Signal(signal));
        exit.is_running()
    });
    let observed = args.observe.start(&mut assembly, trace)?;
    let ended = assembly.run();
    vfio::summary(assembly.vfio());
    observed.finish()?;
    if let Some(stats) = stats {
        stats.write(&assembly)?;
    }
    match ended? {
        ExitReason::PowerOff | ExitReason::Quit | ExitReason::Stopped => Ok(0),
        ExitReason::Reset => Ok(RESET),
        ExitReason::Panicked => {
            Err(Failure { code: PANICKED, message: "the guest's kernel panicked (pvpanic)".into() })
        }
        ExitReason::Signal(signal) => Ok(128 + signal as u8),
        ExitReason::Crash(message) | ExitReason::Failed(message) => Err(Failure { code: 1, message }),
        ExitReason::Host(message) => Err(Failure::host(message)),
    }
}
