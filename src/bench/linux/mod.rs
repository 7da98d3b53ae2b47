//! The Linux bench: fio on one disk per path, and on passed-through disks of the host, all in one guest, job by job.
//!
//! What lives here: the jobs (`fio_job`), what the guest is given (`script`, `archive`), the register by which it reports
//! its progress (`marker`, `counts`, `mark_listener`), and the results (`fio`, `rows`). What may not: how a path is
//! implemented.
//!
//! fio in the guest measures times, the host counts; [`run`] joins both per step, so that counts per request are exact.

pub mod archive;
mod counts;
mod fio;
mod fio_job;
mod mark_listener;
mod marker;
mod rows;
mod script;
mod variant;

pub use fio_job::FioJob;
pub use variant::Variant;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::memfile::MemFile;
use super::report::SCHEMA;
use super::{PathPair, Report, Row, RunFacts, Schedule};
use crate::backend::{BackendKind, DiskOptions};
use crate::dataplane::{CompletePath, Moderation};
use crate::host::sandbox::SandboxMode;
use crate::host::{HostFacts, thread};
use crate::machine::{Console, ExitReason, Kernel, MachineConfig, MachineError, layout};
use crate::virtio::NotifyPath;
use crate::vm::{DiskConfig, IoThreadChoice, SandboxConfig};
use crate::vm::{ThreadConfig, Vm, VmConfig, VmError};
use counts::Sources;
use mark_listener::{Heard, MarkListener};
use marker::{Mark, Marker};
use rows::Results;

use super::progress::Progress;

/// Size of the guest's disk for results: fio's histograms take some 20 KiB per step.
const OUT_BYTES: u64 = 64 << 20;
/// How long each disk is used before the first round.
const WARM_UP_S: f64 = 0.5;
/// How long a guest may take to start, and to get from one step to the next, beyond the step's own time.
const MAX_SILENCE: Duration = Duration::from_secs(90);

/// What the Linux bench measures, and how.
#[derive(Clone, Debug)]
pub struct LinuxBench {
    /// Jobs, variants (our disks first), and rounds.
    pub schedule: Schedule<FioJob, Variant>,
    /// Seconds of each step.
    pub runtime_s: f64,
    /// Bytes of a request.
    pub block_size: u64,
    /// Kernel: bzImage or vmlinux.
    pub kernel: PathBuf,
    /// Initial ramdisk of guest-images/linux.
    pub initrd: PathBuf,
    /// vCPUs.
    pub cpus: u8,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// Backend of the disks.
    pub backend: BackendKind,
    /// Where the disks' files are made; `None`: in memory.
    pub directory: Option<PathBuf>,
    /// Whether the files are opened with O_DIRECT.
    pub direct: bool,
    /// Bytes of each disk.
    pub disk_size: u64,
    /// Request queues of each disk.
    pub queues: u16,
    /// Longest busy-poll of an I/O thread, in microseconds.
    pub poll_us: u64,
    /// Whether the VM's threads are confined.
    pub sandbox: SandboxMode,
    /// How progress is shown.
    pub progress: Progress,
}

impl fmt::Display for LinuxBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: Vec<String>| names.join(", ");
        let jobs = list(self.schedule.jobs.iter().map(ToString::to_string).collect());
        let paths = list(self.schedule.paths.iter().map(ToString::to_string).collect());
        let (steps, each) = (self.schedule.steps().len(), self.runtime_s);
        write!(f, "{jobs} on {paths}: {} rounds, {steps} measurements of {each} s", self.schedule.rounds)
    }
}

impl LinuxBench {
    /// The paths of our disks, which come first.
    fn disks(&self) -> impl Iterator<Item = (PathPair, Moderation)> {
        self.schedule.paths.iter().filter_map(Variant::disk)
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The VM cannot be made.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The machine failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A file cannot be read or made.
    #[error("cannot {doing} {what}: {cause}")]
    File {
        /// "read", "make", ...
        doing: &'static str,
        /// Which.
        what: String,
        /// errno.
        cause: std::io::Error,
    },
    /// The guest failed; one or more sentences.
    #[error("{0}")]
    Guest(String),
}

/// Runs the guest through the whole schedule.
///
/// # Errors
/// See [`BenchError`]. There are no partial reports.
pub fn run(bench: &LinuxBench) -> Result<Report, BenchError> {
    let started = Instant::now();
    let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let files = Files::make(bench)?;
    // On a thread of its own: the sandbox confines the thread that runs the machine, and this one has more to do.
    let (reason, watched) = std::thread::scope(|scope| {
        let vm = scope.spawn(|| {
            thread::leave_group();
            boot(bench, &files)
        });
        vm.join().map_err(|_| BenchError::Guest("a bug in the bench (see above)".into()))?
    })?;
    let out = files.out.read().map_err(|cause| file_error("read", "the guest's results", cause))?;
    let results = archive::untar(&out).map(Results::new);
    let results = match results {
        Some(results) if results.line("status").as_deref() == Some("0") => results,
        results => return Err(BenchError::Guest(failure(reason, &watched, results, &files))),
    };
    let common = Row {
        guest: "linux".into(),
        backend: Some(bench.backend.to_string()),
        queues: Some(bench.queues.into()),
        wait: Some(if bench.poll_us > 0 { "memory-poll" } else { "blocking" }.into()),
        poll_us: Some(bench.poll_us),
        ..Row::default()
    };
    let rows = rows::rows(&bench.schedule, &results, &watched.marks, &common).map_err(BenchError::Guest)?;
    let run = RunFacts {
        started_unix,
        took_s: started.elapsed().as_secs_f64(),
        rounds: bench.schedule.rounds as u64,
        runtime_s: Some(bench.runtime_s),
        vcpus: bench.cpus.into(),
        memory_bytes: bench.memory,
        disk_bytes: Some(bench.disk_size),
        disk: Some(match &bench.directory {
            _ if !bench.backend.uses_file() => bench.backend.to_string(),
            Some(directory) => format!("files in {}", directory.display()),
            None => "files in memory".into(),
        }),
        guest_kernel: results.line("kernel"),
        fio: rows::fio_version(&results),
        ..RunFacts::default()
    };
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}

fn file_error(doing: &'static str, what: impl Into<String>, cause: std::io::Error) -> BenchError {
    BenchError::File { doing, what: what.into(), cause }
}

/// Files without names, so that they disappear with the process, however it ends.
struct Files {
    disks: Vec<Option<MemFile>>,
    initrd: MemFile,
    out: MemFile,
    console: MemFile,
}

impl Files {
    fn make(bench: &LinuxBench) -> Result<Files, BenchError> {
        let place = bench.directory.as_deref();
        let name = place.map_or("memory".into(), |place| place.display().to_string());
        let disk = |_| {
            let make = || MemFile::full(place, bench.disk_size);
            let made = bench.backend.uses_file().then(make).transpose();
            made.map_err(|cause| file_error("make", format!("a disk in {name}"), cause))
        };
        let small = |made: std::io::Result<MemFile>| {
            made.map_err(|cause| file_error("make", "a file in memory", cause))
        };
        let given = std::fs::read(&bench.initrd)
            .map_err(|cause| file_error("read", bench.initrd.display().to_string(), cause))?;
        let mut initrd = given;
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        let job = script::archive(&bench.schedule, bench.block_size, bench.runtime_s, WARM_UP_S);
        initrd.extend(job);
        Ok(Files {
            disks: bench.disks().map(disk).collect::<Result<_, _>>()?,
            initrd: small(MemFile::of(&initrd))?,
            out: small(MemFile::sparse(OUT_BYTES))?,
            console: small(MemFile::of(&[]))?,
        })
    }
}

fn boot(bench: &LinuxBench, files: &Files) -> Result<(ExitReason, Heard), BenchError> {
    let mut assembly = Vm::new(config(bench, files))?;
    for (n, spec) in bench.schedule.paths.iter().enumerate() {
        let Some(spec) = spec.passed() else { continue };
        let slot = assembly.machine().next_slot()?.0;
        if Some(slot) != script::slot(&bench.schedule, n) {
            let message = format!("a bug in the bench: {} would be in slot {slot} of the guest", spec.bdf);
            return Err(BenchError::Guest(message));
        }
        assembly.add_vfio(spec)?;
    }
    let (sender, marks) = crossbeam_channel::unbounded::<Mark>();
    let marker = Arc::new(Marker::new(Sources::of(&assembly, bench.disks().count()), sender));
    let machine = assembly.machine();
    machine
        .mmio()
        .insert(layout::MARKER_START, layout::MARKER_LEN, marker)
        .map_err(|e| MachineError::Host(format!("address map: {e}")))?;
    let (mmio, exit) = (machine.mmio(), machine.exit_latch());

    let schedule = &bench.schedule;
    let label = |step: super::Step| {
        format!("{} on {}, round {}", schedule.jobs[step.job], schedule.paths[step.path], step.round + 1)
    };
    let watch = MarkListener {
        labels: schedule.steps().into_iter().map(label).collect(),
        max_silence: MAX_SILENCE + Duration::from_secs_f64(bench.runtime_s),
        progress: bench.progress,
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch.listen(&marks, || exit.request(ExitReason::Stopped)));
        let reason = assembly.run();
        // The marker holds the only sender: the listener ends when marker and VM are dropped.
        mmio.remove(layout::MARKER_START);
        drop(assembly);
        let watched =
            watcher.join().map_err(|_| BenchError::Guest("a bug in the bench (see above)".into()))?;
        Ok((reason?, watched))
    })
}

fn config(bench: &LinuxBench, files: &Files) -> VmConfig {
    let disk = |options: DiskOptions,
                (path, moderation): (PathPair, Moderation),
                serial: String,
                iothread| DiskConfig {
        queues: bench.queues,
        iothread,
        notify: path.notify,
        complete: path.complete,
        moderation,
        serial: Some(serial),
        ..DiskConfig::new(options)
    };
    let mut disks: Vec<DiskConfig> = Vec::new();
    for (n, (path, file)) in bench.disks().zip(&files.disks).enumerate() {
        let options = DiskOptions {
            path: file.as_ref().map(MemFile::path),
            readonly: false,
            kind: bench.backend,
            size: file.is_none().then_some(bench.disk_size),
            direct: bench.direct,
        };
        disks.push(disk(options, path, script::serial(n), IoThreadChoice::Index(n)));
    }
    let out = DiskOptions {
        path: Some(files.out.path()),
        readonly: false,
        kind: BackendKind::Sync,
        size: None,
        direct: false,
    };
    let out_serial = "doorbell-out".to_string();
    let path = PathPair { notify: NotifyPath::Mmio, complete: CompletePath::Auto };
    disks.push(disk(out, (path, Moderation::Off), out_serial, IoThreadChoice::None));
    VmConfig {
        machine: MachineConfig {
            kernel: Kernel::File(bench.kernel.clone()),
            initrd: Some(files.initrd.path()),
            // Every byte on the console is an exit. Without multipath an NVMe disk is found behind its PCI device.
            cmdline: "console=ttyS0 quiet panic=-1 nvme_core.multipath=N".into(),
            cpus: bench.cpus,
            memory: bench.memory,
            console: Console::File(files.console.path()),
            vcpu_pins: Vec::new(),
            host_tsc: false,
            backing: Default::default(),
        },
        disks,
        threads: vec![ThreadConfig { poll_max_ns: bench.poll_us * 1000, cpu: None }; bench.disks().count()],
        sandbox: SandboxConfig { mode: bench.sandbox, files: Vec::new() },
    }
}

/// Why there are no results, with the end of the guest's console.
fn failure(reason: ExitReason, watched: &Heard, results: Option<Results>, files: &Files) -> String {
    let what = match reason {
        ref ended if ended.why().is_some() => ended.why().unwrap_or_default().to_string(),
        ExitReason::Stopped if watched.silent => {
            let after = match watched.marks.len() {
                0 => "its start".into(),
                n => format!("mark {n}"),
            };
            format!("the guest was silent for too long after {after} and has been stopped")
        }
        _ if results.is_some() => "the job in the guest failed".into(),
        _ => "the guest ended before its job did".into(),
    };
    let console = files.console.read().unwrap_or_default();
    let log = results.and_then(|results| results.text("log"));
    let (name, text) = match log.filter(|log| !log.trim().is_empty()) {
        Some(log) => ("its log", log),
        None => ("its console", String::from_utf8_lossy(&console).into_owned()),
    };
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    if last.is_empty() {
        format!("{what}; it said nothing")
    } else {
        format!("{what}; the end of {name}:\n  {last}")
    }
}
