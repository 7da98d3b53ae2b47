//! For the tests of this room: a report, and the check against its schema.

use super::ratios::fill_ratios;
use super::report::SCHEMA;
use super::{Report, Row, RunFacts};

#[path = "../../tests/common/schema.rs"]
mod schema;
pub(crate) use schema::violations;

/// Two paths, two jobs, three rounds, one of which is lost.
pub(super) fn report() -> Report {
    let row = |job: &str, complete: &str, rounds: [Option<f64>; 3]| Row {
        guest: "linux".into(),
        job: job.into(),
        notify: Some("fast-mmio".into()),
        complete: Some(complete.into()),
        backend: Some("io_uring".into()),
        queues: Some(1),
        depth: Some(if job.ends_with("-32") { 32 } else { 1 }),
        iops: rounds[0],
        round_iops: rounds.to_vec(),
        round_p50_ns: rounds
            .map(|iops| iops.filter(|&iops| iops > 0.0).map(|iops| (1e9 / iops).round()))
            .to_vec(),
        mean_ns: Some(31_250.5),
        p50_ns: Some(30_000),
        p99_ns: Some(99_000),
        p999_ns: Some(1_234_000),
        requests: Some(3000),
        interrupts: Some(1500),
        kicks_ioeventfd: Some(3000),
        kicks_exit: Some(0),
        ..Row::default()
    };
    let mut rows = vec![
        row("rand-read-1", "irqfd", [Some(1000.0), Some(2000.0), Some(4000.0)]),
        row("rand-read-1", "signal-msi", [Some(900.0), None, Some(4400.0)]),
        row("rand-read-32", "irqfd", [Some(100.0), Some(0.0), None]),
        row("rand-read-32", "signal-msi", [Some(100.0), Some(5.0), None]),
    ];
    fill_ratios(&mut rows);
    let run = RunFacts { rounds: 3, runtime_s: Some(2.0), vcpus: 1, took_s: 24.4, ..RunFacts::default() };
    Report { schema: SCHEMA.into(), host: crate::host::HostFacts::here(), run, rows }
}
