//! The Linux bench: fio on one disk per path, and on passed-through disks of the host, all in one guest, job by job.
//!
//! What lives here: the jobs (`fio_job`, `fio_file`), what the guest is given (`script`, `archive`), its run (`guest`), the
//! command that it may be given instead (`command`), the register by which it reports its progress (`marker`, `counts`, `mark_listener`), and the results (`fio`, `rows`). What may not: how a path is
//! implemented.
//!
//! fio in the guest measures times, the host counts; [`run`] joins both per step, so that counts per request are exact.

pub mod archive;
pub mod command;
mod counts;
mod fio;
pub mod fio_file;
mod fio_job;
mod guest;
mod mark_listener;
mod marker;
mod rows;
mod script;
mod variant;

pub use fio_job::FioJob;
pub use variant::Variant;

use std::fmt;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::pace::Pace;
use super::progress::Progress;
use super::report::SCHEMA;
use super::{PathPair, Report, Row, RunFacts, Schedule};
use crate::backend::BackendKind;
use crate::dataplane::Moderation;
use crate::host::{HostFacts, HostLoad};
use crate::machine::MachineError;
use crate::vm::VmError;
use guest::Files;
use rows::Results;

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
    /// Host CPUs of the vCPUs.
    pub vcpu_pins: Vec<Option<usize>>,
    /// Host CPUs of the I/O threads, one for each of our disks.
    pub thread_pins: Vec<Option<usize>>,
    /// Whether the paths are one path twice, and every difference between them is false.
    pub self_test: bool,
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
    let load = HostLoad::now();
    let files = Files::make(bench)?;
    let (reason, watched) = guest::boot(bench, started, &files)?;
    let out = files.results()?;
    let results = archive::untar(&out).map(Results::new);
    let results = match results {
        Some(results) if results.line("status").as_deref() == Some("0") => results,
        results => return Err(BenchError::Guest(guest::failure(reason, &watched, results, &files))),
    };
    let common = Row {
        guest: "linux".into(),
        backend: Some(bench.backend.to_string()),
        queues: Some(bench.queues.into()),
        wait: Some(if bench.poll_us > 0 { "memory-poll" } else { "blocking" }.into()),
        poll_us: Some(bench.poll_us),
        ..Row::default()
    };
    let (mut rows, rounds) =
        rows::rows(&bench.schedule, &results, &watched.marks, &common).map_err(BenchError::Guest)?;
    rows.iter_mut().for_each(Row::keep_supported_percentiles);
    if bench.self_test {
        let again = |row: &mut Row| row.backend = row.backend.take().map(|name| format!("{name} again"));
        rows.iter_mut().skip(1).step_by(2).for_each(again);
    }
    let by_host = rows::by_host(&bench.schedule, &watched.marks, bench.runtime_s);
    let all = rounds >= bench.schedule.rounds || bench.pace.exact_enough(&by_host);
    let cut = bench.pace.cut(started).filter(|_| !all);
    let run = RunFacts {
        started_unix,
        took_s: started.elapsed().as_secs_f64(),
        rounds: rounds as u64,
        incomplete: cut.map(|why| format!("{why}, after {rounds} of {} rounds", bench.schedule.rounds)),
        runtime_s: bench.fio_file.is_none().then_some(bench.runtime_s),
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
        fio_file: bench.fio_file.clone(),
        ..RunFacts::default()
    }
    .with_load(&load);
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}
