//! The Linux bench: fio on one disk per path, and on passed-through disks of the host, all in one guest, job by job.
//!
//! What lives here: the configuration (`config`), the jobs (`fio_job`, `fio_file`), the VM (`boot`), what the guest is given
//! (`script`, `archive`), the command that it may be given instead (`command`), the register by which it reports its
//! progress (`marker`, `counts`, `mark_listener`), the results (`fio`, `sample`, `rows`), and reference VMMs beside ours
//! (`peer`). What may not: how a path is implemented.
//!
//! fio in the guest measures times, and the host counts. [`run`] joins both per step, so that counts per request are exact.

pub mod archive;
mod boot;
pub mod command;
mod config;
mod counts;
mod fio;
pub mod fio_file;
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
use crate::host::{HostFacts, HostLoad, thread};
use boot::Files;
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
    let load = HostLoad::now();
    let files = Files::make(bench)?;
    let turns = Arc::new(boot::peers(bench)?);
    // On a thread of its own: the sandbox confines the thread that runs the machine, and this one has more to do.
    let (reason, watched) = std::thread::scope(|scope| {
        let vm = scope.spawn(|| {
            thread::leave_group();
            boot::boot(bench, started, &files, &turns)
        });
        vm.join().map_err(|_| BenchError::Guest("a bug in the bench (see above)".into()))?
    })?;
    let out = files.results()?;
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
    let (mut rows, rounds) =
        rows::rows(&bench.schedule, &results, &watched.marks, turns.finish(), &common, bench.backend)
            .map_err(BenchError::Guest)?;
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
        peer: Some(turns.versions.join("; ")).filter(|_| bench.has_peers()),
        guest_kernel: results.line("kernel"),
        fio: rows::fio_version(&results),
        fio_file: bench.fio_file.clone(),
        ..RunFacts::default()
    }
    .with_load(&load);
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}
