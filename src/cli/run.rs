//! `doorbell run`: one guest on the serial console.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::current::Current;
use super::fio_arg::read_fio;
use super::guest_files::{guest_dir, guest_file};
use super::observed::ObserveArgs;
use super::out_file::OutFile;
use super::out_place::FilesInUse;
use super::pins::Pins;
use super::run_values::{parse_console, parse_cpu, parse_huge_page, parse_memory};
use super::signals::Signals;
use super::stats::StatsFile;
use super::{Failure, parse_sandbox, sandbox_mode, vfio};
use crate::backend::{BackendKind, DiskOptions};
use crate::bench::linux::command::{self, Command, ExitStatus};
use crate::host::log;
use crate::host::sandbox::{Right, SandboxMode};
use crate::machine::layout::{self, MIB, VCPUS_MAX};
use crate::machine::{Console, CpuModel, ExitReason, HugePage, Kernel, MachineConfig, RamBacking};
use crate::vfio::VfioSpec;
use crate::vm::DiskConfig;
use crate::vm::{SandboxConfig, ThreadConfig, Vm, VmConfig};

/// The default kernel command line.
const CMDLINE: &str = "console=ttyS0 panic=-1";
/// The disk of --fio if none is given.
const FIO_DISK_BYTES: u64 = 256 * MIB;

/// Exit code of a run that the guest ended by a reset.
const RESET: u8 = 5;
/// Exit code of a run whose guest panicked.
const PANICKED: u8 = 6;

/// Boot a guest on the serial console.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorbell run --kernel bzImage --initrd initrd --disk path=disk.img
  doorbell run --kernel vmlinux --disk path=a.img,complete=signal-msi --disk path=b.img,queues=4 --cpus 4 --control /tmp/vm
  doorbell run --kernel bzImage --disk path=root.img,readonly --append 'root=/dev/vda ro'
  doorbell run --fio my.fio --disk path=disk.img --pin vcpu0=2,iothread0=3
  doorbell run --config vm.toml --cpus 2

On a terminal every key goes to the guest, including Ctrl-C. Ctrl-A x ends the run; Ctrl-A Ctrl-A sends Ctrl-A.
The exit code is 0 if the guest powers off, 5 if it reboots, and 6 if its kernel panics and has the pvpanic driver;
`doorbell --help` has the others.")]
pub struct RunArgs {
    /// Take flags from a TOML file: cpus = 2, disk = ["path=a", "path=b"], or [[disk]] with its keys. A flag that is given here
    /// replaces the file's; names of files are as here, from the current directory
    #[arg(long, help_heading = "Files of flags", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the flags as such a file, and end
    #[arg(long, help_heading = "Files of flags")]
    pub(super) print_config: bool,
    /// Linux bzImage, or an ELF image with a PVH entry (vmlinux) [default with --fio and guest: vmlinux in --guest-dir]
    #[arg(long, help_heading = "The guest", value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial ramdisk [default with --fio and guest: initrd in --guest-dir]
    #[arg(long, help_heading = "The guest", value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Directory of the guest that guest-images/linux/build made [default: $DOORBELL_GUEST, or target/guest]
    #[arg(long, help_heading = "The guest", value_name = "DIR")]
    guest_dir: Option<PathBuf>,
    /// With run: run a job file for fio in the guest of --guest-dir, section by section, on the first --disk [default: 256M in
    /// memory], and print what fio prints; the exit code is fio's. To compare paths, use `doorbell bench --fio`
    #[arg(long, help_heading = "The guest", value_name = "FILE")]
    pub(super) fio: Option<PathBuf>,
    /// Kernel command line, instead of the default [default: console=ttyS0 panic=-1, and quiet loglevel=1 for --fio and guest]
    #[arg(long, help_heading = "The guest", value_name = "STRING")]
    cmdline: Option<String>,
    /// More for the kernel command line, behind the default or --cmdline
    #[arg(long, help_heading = "The guest", value_name = "STRING")]
    append: Option<String>,
    /// vCPUs, 1 to 16
    #[arg(long, help_heading = "The guest", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(VCPUS_MAX)))]
    cpus: u8,
    /// The vCPUs' features: masked (without nested virtualization, SGX, encrypted memory, performance counters and branch records,
    /// PKS and AMX, which a guest with disks does not need) or passthrough (all that KVM supports)
    #[arg(long, help_heading = "The guest", value_name = "MODEL", default_value_t, value_parser = parse_cpu)]
    cpu: CpuModel,
    /// Guest RAM, 128M to 8G
    #[arg(long, help_heading = "The guest", value_name = "SIZE", default_value = "512M", value_parser = parse_memory)]
    memory: u64,
    /// Back guest RAM with huge pages of this size, 2M or 1G, which must be reserved (nr_hugepages)
    #[arg(long, help_heading = "The guest", value_name = "SIZE", value_parser = parse_huge_page)]
    hugepages: Option<HugePage>,
    /// Allocate every page of guest RAM before the guest runs
    #[arg(long, help_heading = "The guest")]
    prefault: bool,
    /// Serial console: stdio, file=F (output only) or off
    #[arg(long, help_heading = "The guest", value_name = "WHERE", default_value = "stdio", value_parser = parse_console)]
    console: Console,
    /// A disk; may be given several times. Its keys and values:
    ///   path=FILE (a regular file or a block device), readonly, backend=io_uring|sync|null|mem, size=SIZE, direct,
    ///   block-size=512|4096, delay=TIME (backend=null: each request takes that long, as in 80us), queues=N, queue-size=N,
    ///   iothread=K|auto|none, notify=fast-mmio|mmio|pio|exit,
    ///   complete=auto|irqfd|signal-msi|irq-line|resample, ring=split|packed, event-idx=on|off,
    ///   notification-data=on|off, vhost-user=SOCKET,
    ///   moderate=auto|off|N:US, serial=S; a comma in a value is written twice
    #[arg(
        long = "disk",
        help_heading = "Disks and devices",
        value_name = "KEY=VALUE,...",
        verbatim_doc_comment
    )]
    disks: Vec<DiskConfig>,
    /// A device of the host that is bound to vfio-pci (see `doorbell vfio`); may be given several times. Its interrupts
    /// stay in the kernel (irq=kernel, the default) or go through the VMM (irq=user)
    #[arg(long, help_heading = "Disks and devices", value_name = "BDF[,irq=kernel|user]")]
    vfio: Vec<VfioSpec>,
    /// I/O threads, 1 to 16; the queues of disks with iothread=auto are spread over them
    #[arg(long, help_heading = "Threads", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    iothreads: u8,
    /// Longest busy-poll of an I/O thread before it sleeps, in microseconds
    #[arg(long, help_heading = "Threads", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    poll_us: u32,
    /// Write each disk's counts (requests, kicks and interrupts by path) to FILE as JSON when the run ends
    #[arg(long, help_heading = "Observation", value_name = "FILE")]
    stats: Option<PathBuf>,
    /// What to do when the guest resets the machine (reboot, triple fault): end the run with exit code 5, or start the machine
    /// again with the same disks and control socket. Kernel and initrd are then read again, and all counts start at 0
    #[arg(long, help_heading = "The guest", value_name = "WHAT", value_enum, default_value_t = OnReset::Exit)]
    on_reset: OnReset,
    /// Give the guest the port 0x501: writing v to it ends the run with exit code 2v + 1 (QEMU: -device isa-debug-exit)
    #[arg(long, help_heading = "The guest")]
    debug_exit: bool,
    /// Host CPUs for the threads, as in vcpu0=2,iothread0=3; without a number, all of that kind: vcpu=2,iothread=3
    #[arg(long, help_heading = "Threads", value_name = "THREAD=CPU,...")]
    pin: Option<Pins>,
    /// Restrict the threads to the system calls that they need while the guest runs: on (any other call ends the run with
    /// exit code 7), log (the kernel logs other calls) or off [default: on, and off with --on-reset restart or vhost-user=, which need more]
    #[arg(long, help_heading = "Threads", value_name = "HOW", value_parser = parse_sandbox)]
    sandbox: Option<SandboxMode>,
    #[command(flatten)]
    observe: ObserveArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnReset {
    Exit,
    Restart,
}

/// What the threads still need by name at the end of the run.
fn late_files(outputs: &[Option<&Path>], observe: &ObserveArgs) -> Vec<(PathBuf, Right)> {
    let results = outputs.iter().flatten().map(|directory| ((*directory).into(), Right::Replace));
    results.chain(observe.late_files()).collect()
}

/// Gives the devices of the host to the guest, and the register for the status of its command.
fn plug(assembly: &mut Vm, devices: &[VfioSpec], status: Option<&Arc<ExitStatus>>) -> Result<(), Failure> {
    devices.iter().try_for_each(|spec| assembly.add_vfio(*spec))?;
    let Some(status) = status else { return Ok(()) };
    let mmio = assembly.machine().mmio();
    mmio.insert(layout::EMBEDDER_START, layout::EMBEDDER_LEN, status.clone())
        .map_err(|e| Failure { code: 1, message: format!("a bug in doorbell: address map: {e}") })
}

/// Runs the guest to its end; returns the exit code.
pub(super) fn run(mut args: RunArgs) -> Result<u8, Failure> {
    let Some(file) = &args.fio else {
        if args.kernel.is_none() {
            return Err(Failure::usage(
                "run needs --kernel FILE; doorbell guest runs a command in a guest of its own",
            ));
        }
        return boot(args, None);
    };
    let (_, sections) = read_fio(file)?;
    if args.disks.is_empty() {
        args.disks.push(DiskConfig::new(DiskOptions {
            path: None,
            readonly: false,
            kind: BackendKind::Mem,
            size: Some(FIO_DISK_BYTES),
            direct: false,
            block_size: None,
            delay_us: 0,
        }));
    }
    let serial = args.disks[0].serial.clone().unwrap_or_else(|| "disk0".into());
    run_command(args, Command::Fio(sections, serial))
}

/// Runs `command` in the Linux guest; returns its exit code.
pub(super) fn run_command(mut args: RunArgs, command: Command) -> Result<u8, Failure> {
    let dir = guest_dir(args.guest_dir.take());
    let initrd = guest_file(args.initrd.take(), &dir, "initrd", "--initrd")?;
    args.kernel = Some(guest_file(args.kernel.take(), &dir, "vmlinux", "--kernel")?);
    args.cmdline.get_or_insert_with(|| command::CMDLINE.into());
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let fail = |e| Failure { code: 4, message: format!("--initrd {} cannot be read: {e}", initrd.display()) };
    let with_command = command.initrd(&initrd, terminal).map_err(fail)?;
    args.initrd = Some(with_command.path());
    boot(args, Some(Arc::default()))
}

fn boot(args: RunArgs, status: Option<Arc<ExitStatus>>) -> Result<u8, Failure> {
    let pins = args.pin.unwrap_or_default();
    pins.check(args.cpus.into(), args.iothreads.into())?;
    let kernel = args.kernel.unwrap_or_default();
    let signals = Signals::take()?;
    if let Some(twice) =
        args.vfio.iter().enumerate().find_map(|(n, spec)| {
            args.vfio[..n].iter().any(|other| other.bdf == spec.bdf).then_some(spec.bdf)
        })
    {
        return Err(Failure::usage(format!("--vfio {twice} is given twice; leave one out")));
    }
    // Both open files and sockets while the guest runs, which a confined thread may not.
    let restart = (args.on_reset == OnReset::Restart).then_some("--on-reset restart");
    let remote = args.disks.iter().any(|disk| disk.vhost_user.is_some()).then_some("--disk vhost-user=");
    let sandbox = sandbox_mode(args.sandbox, restart.or(remote));
    let mut files = FilesInUse::default();
    files.input("--kernel", &kernel);
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
    args.observe.start_log(&mut files)?;
    let mut config = VmConfig {
        machine: MachineConfig {
            initrd: args.initrd,
            cmdline: [args.cmdline.as_deref().unwrap_or(CMDLINE)]
                .into_iter()
                .chain(args.append.as_deref())
                .collect::<Vec<_>>()
                .join(" "),
            cpus: args.cpus,
            cpu_model: args.cpu,
            memory: args.memory,
            console: args.console,
            vcpu_pins: pins.vcpus(args.cpus.into()),
            backing: RamBacking { huge: args.hugepages, prefault: args.prefault, shared: false },
            debug_exit: args.debug_exit,
            ..MachineConfig::new(Kernel::File(kernel))
        },
        disks: args.disks,
        threads: (0..usize::from(args.iothreads))
            .map(|n| ThreadConfig { poll_max_ns: u64::from(args.poll_us) * 1000, cpu: pins.iothread(n) })
            .collect(),
        sandbox: SandboxConfig {
            mode: sandbox,
            files: late_files(
                &[stats.as_ref().and_then(StatsFile::directory), trace.as_ref().and_then(OutFile::directory)],
                &args.observe,
            ),
        },
    };
    let mut assembly = Vm::new(config.clone())?;
    plug(&mut assembly, &args.vfio, status.as_ref())?;
    let current = Current::new(assembly.machine().exit_latch());
    signals.on_continue(assembly.machine().console_waker());
    let ends = current.clone();
    // While a kernel is read no main loop runs: a signal ends the process at once.
    signals.on_end(move |signal| ends.end(ExitReason::Signal(signal)));
    let observed = args.observe.start(&mut assembly, trace, current.on_death())?;
    config.machine.follows = true;
    let ended = loop {
        let ended = assembly.run();
        vfio::summary(assembly.vfio());
        if args.on_reset == OnReset::Exit || !matches!(ended, Ok(ExitReason::Reset)) {
            break ended;
        }
        log::warn("guest", format_args!("it reset the machine; starting it again"));
        // Nobody who reads the console from a FIFO sees its end meanwhile.
        let console = match &config.machine.console {
            Console::File(path) => {
                File::options().append(true).custom_flags(libc::O_NONBLOCK).open(path).ok()
            }
            _ => None,
        };
        assembly = observed.replace(|| {
            // Before the next one is made: two would need the RAM, the passed-through devices and the backends twice.
            let images = assembly.images().to_vec();
            drop(assembly);
            let mut next = Vm::with_images(config.clone(), images)?;
            plug(&mut next, &args.vfio, status.as_ref())?;
            Ok(next)
        })?;
        drop(console);
        signals.on_continue(assembly.machine().console_waker());
        current.is_now(assembly.machine().exit_latch());
    };
    observed.finish()?;
    if let Some(stats) = stats {
        stats.write(&assembly)?;
    }
    let ended = ended?;
    if let Some(code) = status.as_ref().and_then(|status| status.get()) {
        return Ok(code);
    }
    match ended {
        ExitReason::PowerOff if status.is_some() => {
            Err(Failure { code: 1, message: "the guest ended before the command did".into() })
        }
        ExitReason::PowerOff | ExitReason::Quit | ExitReason::Stopped => Ok(0),
        ExitReason::Reset => Ok(RESET),
        ExitReason::Status(status) => Ok(status << 1 | 1),
        ExitReason::Panicked => {
            Err(Failure { code: PANICKED, message: "the guest's kernel panicked (pvpanic)".into() })
        }
        ExitReason::Signal(signal) => Ok(128 + signal as u8),
        ExitReason::Crash(message) | ExitReason::Failed(message) => Err(Failure { code: 1, message }),
        ExitReason::Host(message) => Err(Failure::host(message)),
    }
}
