//! The bench's VM: its files, its disks, its run from the start to the end of the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::config::{BenchError, LinuxBench, file_error};
use super::counts::{Counts, Sources};
use super::fio_job::UNTIMED_S;
use super::mark_listener::{Heard, MarkListener};
use super::marker::{BEGIN, END, Mark, Marker};
use super::peer::{self, Turns, VmFacts};
use super::sample::Results;
use super::{rows, script};

use crate::backend::{BackendKind, DiskOptions};
use crate::bench::memfile::MemFile;
use crate::bench::progress::Progress;
use crate::bench::{DiskCounts, PathPair, Step};
use crate::dataplane::{CompletePath, Moderation};
use crate::host::{log, monotonic_ns};
use crate::machine::{Console, ExitReason, Kernel, MachineConfig, MachineError, layout};
use crate::virtio::NotifyPath;
use crate::vm::{DiskConfig, IoThreadChoice, SandboxConfig, ThreadConfig, Vm, VmConfig};

/// Size of the guest's disk for results: fio's histograms take some 20 KiB per step.
const OUT_BYTES: u64 = 64 << 20;
/// How long each disk is used before the first round.
const WARM_UP_S: f64 = 0.5;
/// How long a guest may take to start, and to get from one step to the next, beyond the step's own time.
const MAX_SILENCE: Duration = Duration::from_secs(90);

/// Files without names, so that they disappear with the process, however it ends.
pub struct Files {
    disks: Vec<Option<MemFile>>,
    initrd: MemFile,
    out: MemFile,
    console: MemFile,
}

impl Files {
    /// Makes them.
    ///
    /// # Errors
    /// A file cannot be read or made.
    pub fn make(bench: &LinuxBench) -> Result<Files, BenchError> {
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
        let mut initrd = given_initrd(bench)?;
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

    /// What the guest wrote to its disk for results.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn results(&self) -> Result<Vec<u8>, BenchError> {
        self.out.read().map_err(|cause| file_error("read", "the guest's results", cause))
    }
}

/// Starts the reference VMMs, which wait for their turns.
///
/// # Errors
/// A file cannot be read or made.
pub fn peers(bench: &LinuxBench) -> Result<Turns, BenchError> {
    let vm = VmFacts {
        kernel: bench.kernel.clone(),
        cmdline: bench.cmdline(),
        cpus: bench.cpus,
        memory: bench.memory,
        backend: bench.backend,
        direct: bench.direct,
        queues: bench.queues,
        poll_us: bench.poll_us,
    };
    let files = peer::Files {
        initrd: given_initrd(bench)?,
        directory: bench.directory.clone(),
        disk_size: bench.disk_size,
        block_size: bench.block_size,
        runtime_s: bench.runtime_s,
        warm_up_s: WARM_UP_S,
    };
    if bench.has_peers() && bench.progress == Progress::Lines {
        log::say(format_args!("starting the reference VMMs"));
    }
    Turns::start(&bench.schedule, &vm, &files)
        .map_err(|cause| file_error("make", "a reference VMM's disk", cause))
}

fn given_initrd(bench: &LinuxBench) -> Result<Vec<u8>, BenchError> {
    let read = std::fs::read(&bench.initrd);
    read.map_err(|cause| file_error("read", bench.initrd.display().to_string(), cause))
}

/// Runs the guest until it ends, with the turns of reference VMMs between its steps.
///
/// # Errors
/// The VM cannot be made, or the machine failed.
pub fn boot(
    bench: &LinuxBench,
    started: Instant,
    files: &Files,
    turns: &Arc<Turns>,
) -> Result<(ExitReason, Heard), BenchError> {
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
    let (begin, end) = announce(&sender);
    let (theirs, asked) = (turns.clone(), AtomicUsize::new(0));
    let sources = Sources::of(&assembly, bench.disks().count());
    let enough = Arc::new(AtomicBool::new(false));
    let (pace, done) = (bench.pace.clone(), enough.clone());
    // The guest asks before each of its steps. The turns before that step come first: whether a round is over, and the
    // figures are exact enough, is known only then.
    let more = move || {
        theirs.before(theirs.ours(asked.fetch_add(1, Ordering::Relaxed)), &begin, &end);
        !done.load(Ordering::Relaxed) && pace.cut(started).is_none()
    };
    let marker = Arc::new(Marker::new(sources, sender.clone(), more));
    let machine = assembly.machine();
    machine
        .mmio()
        .insert(layout::EMBEDDER_START, layout::EMBEDDER_LEN, marker)
        .map_err(|e| MachineError::Host(format!("address map: {e}")))?;
    let (mmio, exit) = (machine.mmio(), machine.exit_latch());

    let schedule = &bench.schedule;
    let label = |step: Step| {
        format!("{} on {}, round {}", schedule.jobs[step.job], schedule.paths[step.path], step.round + 1)
    };
    let watch = MarkListener {
        labels: schedule.steps().into_iter().map(label).collect(),
        max_silence: max_silence(bench),
        progress: bench.progress,
    };
    let heard = |marks: &[Mark]| {
        let ended = marks.last().is_some_and(|mark| mark.what == END);
        if ended && bench.pace.exact_enough(&rows::by_host(schedule, marks, bench.runtime_s)) {
            enough.store(true, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch.listen(&marks, heard, || exit.request(ExitReason::Stopped)));
        let reason = assembly.run();
        mmio.remove(layout::EMBEDDER_START);
        drop(assembly);
        if reason.is_ok() && bench.pace.cut(started).is_none() {
            let (begin, end) = announce(&sender);
            turns.rest(begin, end);
        }
        // The listener ends with the last sender; the marker's is gone.
        drop(sender);
        let watched =
            watcher.join().map_err(|_| BenchError::Guest("a bug in the bench (see above)".into()))?;
        Ok((reason?, watched))
    })
}

fn max_silence(bench: &LinuxBench) -> Duration {
    let step = bench.schedule.jobs.iter().map(|job| {
        let seconds = job.seconds(bench.runtime_s).unwrap_or(UNTIMED_S);
        MAX_SILENCE + Duration::from_secs_f64(seconds)
    });
    step.max().unwrap_or(MAX_SILENCE)
}

/// Marks for steps of reference VMMs, so that they are shown like ours.
fn announce(marks: &Sender<Mark>) -> (impl Fn(usize) + use<>, impl Fn(usize, u64) + use<>) {
    // The receiver is gone only when the run is over.
    let send = |marks: &Sender<Mark>, step: usize, what, requests| {
        let disk = DiskCounts { requests, ..DiskCounts::default() };
        let counts = vec![Counts { disk, ..Counts::default() }];
        _ = marks.send(Mark { step: step as u16, what, at_ns: monotonic_ns(), counts });
    };
    let (begins, ends) = (marks.clone(), marks.clone());
    (move |step| send(&begins, step, BEGIN, 0), move |step, requests| send(&ends, step, END, requests))
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
            block_size: None,
            delay_us: 0,
        };
        disks.push(disk(options, path, script::serial(n), IoThreadChoice::Index(n)));
    }
    let out = DiskOptions {
        path: Some(files.out.path()),
        readonly: false,
        kind: BackendKind::Sync,
        size: None,
        direct: false,
        block_size: None,
        delay_us: 0,
    };
    let out_serial = "doorbell-out".to_string();
    let path = PathPair { notify: NotifyPath::Mmio, complete: CompletePath::Auto };
    disks.push(disk(out, (path, Moderation::Off), out_serial, IoThreadChoice::None));
    VmConfig {
        machine: MachineConfig {
            initrd: Some(files.initrd.path()),
            cmdline: bench.cmdline(),
            cpus: bench.cpus,
            memory: bench.memory,
            console: Console::File(files.console.path()),
            vcpu_pins: bench.vcpu_pins.clone(),
            ..MachineConfig::new(Kernel::File(bench.kernel.clone()))
        },
        disks,
        threads: bench
            .thread_pins
            .iter()
            .map(|&cpu| ThreadConfig { poll_max_ns: bench.poll_us * 1000, cpu })
            .collect(),
        sandbox: if bench.has_peers() {
            SandboxConfig::off()
        } else {
            SandboxConfig { mode: bench.sandbox, files: Vec::new() }
        },
    }
}

/// Why there are no results, with the end of the guest's console.
pub fn failure(reason: ExitReason, watched: &Heard, results: Option<Results>, files: &Files) -> String {
    let what = match reason {
        ref ended if ended.why().is_some() => ended.why().unwrap_or_default().to_string(),
        ExitReason::Stopped if watched.silent => {
            let after = match watched.marks.len() {
                0 => "its start".into(),
                n => format!("mark {n}"),
            };
            format!("the guest was silent for too long after {after} and was stopped")
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
