//! The Linux bench: fio on one disk per path, and on passed-through disks of the host, all in one guest, job by job.
//!
//! What lives here: what is asked for (`config`), the jobs (`fio_job`), the VM (`boot`), what the guest is given (`script`, `archive`), the register by which it reports
//! its progress (`marker`, `counts`, `mark_listener`), the results (`fio`, `sample`, `rows`), and reference VMMs beside ours
//! (`peer`). What may not: how a path is implemented.
//!
//! fio in the guest measures times, the host counts; [`run`] joins both per step, so that counts per request are exact.

pub mod archive;
mod boot;
mod config;
mod counts;
mod fio;
mod fio_job;
mod mark_listener;
mod marker;
mod peer;
mod rows;
mod sample;
mod script;
mod variant;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::report::SCHEMA;
use super::{Report, Row, RunFacts};
use crate::host::HostFacts;
use boot::Files;
use config::file_error;
use sample::Results;

pub use config::{BenchError, LinuxBench};
pub use fio_job::FioJob;
pub use peer::{Peer, PeerKind, PeerSpec};
pub use variant::Variant;

/// Runs the guest through the whole schedule.
///
/// # Errors
/// See [`BenchError`]. There are no partial reports.
pub fn run(bench: &LinuxBench) -> Result<Report, BenchError> {
    let started = Instant::now();
    let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let files = Files::make(bench)?;
    let turns = Arc::new(boot::peers(bench)?);
    let (reason, watched) = boot::boot(bench, &files, &turns)?;
    let out = files.out.read().map_err(|cause| file_error("read", "the guest's results", cause))?;
    let results = archive::untar(&out).map(Results::new);
    let results = match results {
        Some(results) if results.line("status").as_deref() == Some("0") => results,
        results => return Err(BenchError::Guest(boot::failure(reason, &watched, results, &files))),
    };
    let common = Row {
        guest: "linux".into(),
        backend: Some(bench.backend.to_string()),
        queues: Some(bench.queues.into()),
        wait: Some(if bench.poll_us > 0 { "memory-poll" } else { "blocking" }.into()),
        poll_us: Some(bench.poll_us),
        ..Row::default()
    };
    let rows = rows::rows(&bench.schedule, &results, &watched.marks, turns.finish(), &common, bench.backend);
    let rows = rows.map_err(BenchError::Guest)?;
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
        peer: Some(turns.versions.join("; ")).filter(|_| bench.has_peers()),
        guest_kernel: results.line("kernel"),
        fio: rows::fio_version(&results),
        ..RunFacts::default()
    };
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}
