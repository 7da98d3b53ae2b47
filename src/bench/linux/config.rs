//! The configuration of the Linux bench, and its errors.

use std::fmt;
use std::path::PathBuf;

use super::fio_job::FioJob;
use super::variant::Variant;
use crate::backend::BackendKind;
use crate::bench::pace::Pace;
use crate::bench::progress::Progress;
use crate::bench::{PathPair, Schedule};
use crate::dataplane::Moderation;
use crate::host::sandbox::SandboxMode;
use crate::machine::MachineError;
use crate::vm::VmError;

/// What the Linux bench measures, and how.
#[derive(Clone, Debug)]
pub struct LinuxBench {
    /// Jobs, variants (our disks first, reference VMMs last), and rounds.
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
    /// Host CPUs of the vCPUs.
    pub vcpu_pins: Vec<Option<usize>>,
    /// Host CPUs of the I/O threads, one for each of our disks.
    pub thread_pins: Vec<Option<usize>>,
    /// Whether the paths are one path twice, and every difference between them is false.
    pub self_test: bool,
    /// Whether the VM's threads are confined. They are not beside reference VMMs: a vCPU's thread gives these their turns.
    pub sandbox: SandboxMode,
    /// The job file that the jobs are of; `None`: they are made from their names.
    pub fio_file: Option<String>,
    /// When it ends, besides at its last round.
    pub pace: Pace,
    /// How progress is shown.
    pub progress: Progress,
}

impl fmt::Display for LinuxBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: Vec<String>| names.join(", ");
        let jobs = list(self.schedule.jobs.iter().map(ToString::to_string).collect());
        let paths = list(self.schedule.paths.iter().map(ToString::to_string).collect());
        let (steps, rounds) = (self.schedule.steps().len(), self.schedule.rounds);
        write!(f, "{jobs} on {paths}: {rounds} rounds, {steps} measurements")?;
        match self.fio_file {
            Some(_) => write!(f, " as the job file says"),
            None => write!(f, " of {} s", self.runtime_s),
        }
    }
}

impl LinuxBench {
    /// The paths of our disks, which come first.
    pub fn disks(&self) -> impl Iterator<Item = (PathPair, Moderation)> {
        self.schedule.paths.iter().filter_map(Variant::disk)
    }

    /// Whether a reference VMM takes part.
    pub fn has_peers(&self) -> bool {
        self.schedule.paths.iter().any(|path| matches!(path, Variant::Peer(_)))
    }

    /// The guest's kernel command line.
    pub fn cmdline(&self) -> String {
        // Every byte on the console is an exit. Without multipath an NVMe disk is found behind its PCI device.
        let line = "console=ttyS0 quiet panic=-1 nvme_core.multipath=N";
        // A guest that waits for its turn is stopped for longer than its kernel's watchdogs tolerate.
        let patient = " nowatchdog rcupdate.rcu_cpu_stall_suppress=1 workqueue.watchdog_thresh=0";
        format!("{line}{}", if self.has_peers() { patient } else { "" })
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

/// An operation on `what` that failed.
pub fn file_error(doing: &'static str, what: impl Into<String>, cause: std::io::Error) -> BenchError {
    BenchError::File { doing, what: what.into(), cause }
}
