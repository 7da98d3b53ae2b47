//! `--stats FILE`: what each disk of a run did, as JSON.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::Failure;
use super::out_file::OutFile;
use crate::assembly::Assembly;
use crate::dataplane::{InterruptCounts, QueueCounters};
use crate::virtio::{QueueView, VirtioBlk};

/// Name and version of the format.
const SCHEMA: &str = "doorbell-stats/1";

/// Where the counts go.
pub(super) struct StatsFile(OutFile);

impl StatsFile {
    pub(super) fn create(path: &Path) -> Result<StatsFile, Failure> {
        OutFile::create("--stats", path).map(StatsFile)
    }

    /// Writes the counts of a machine that has stopped.
    pub(super) fn write(self, assembly: &Assembly) -> Result<(), Failure> {
        self.0.write_pretty_json(&Stats {
            schema: SCHEMA,
            disks: assembly.disks().iter().map(|disk| DiskStats::of(disk)).collect(),
            vfio: assembly.vfio().iter().map(|device| super::vfio::stats(device)).collect(),
        })
    }
}

#[derive(Serialize)]
struct Stats {
    schema: &'static str,
    disks: Vec<DiskStats>,
    vfio: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct DiskStats {
    name: String,
    serial: String,
    notify: String,
    complete: String,
    /// Feature bits that the driver took.
    features: u64,
    /// What the host refused and the device did without.
    trouble: Option<String>,
    queues: Vec<QueueStats>,
    config_interrupts: Option<Interrupts>,
}

#[derive(Serialize)]
struct QueueStats {
    enabled: bool,
    kicks_exit: u64,
    kicks_missed: u64,
    requests: u64,
    errors: u64,
    bytes_read: u64,
    bytes_written: u64,
    /// Wake-ups by the kick eventfd, `spurious` of them without a request.
    wakeups: u64,
    spurious: u64,
    batches: u64,
    suppressed: u64,
    system_calls: u64,
    interrupts: Interrupts,
}

#[derive(Serialize)]
struct Interrupts {
    irqfd: u64,
    signal_msi: u64,
    pending: u64,
    refused: u64,
    intx: u64,
    no_vector: u64,
}

impl DiskStats {
    fn of(disk: &VirtioBlk) -> DiskStats {
        let view = disk.view();
        let interrupts = disk.interrupts();
        let of_queues = view.queues.iter().zip(disk.counters()).zip(&interrupts);
        DiskStats {
            name: view.name,
            serial: disk.config().serial.clone(),
            notify: view.notify.to_string(),
            complete: disk.lines().path().to_string(),
            features: view.features,
            trouble: view.trouble,
            queues: of_queues.map(|((view, queue), int)| QueueStats::of(view, queue, int.counts())).collect(),
            // The configuration's is the last.
            config_interrupts: interrupts.last().map(|i| Interrupts::of(i.counts())),
        }
    }
}

impl QueueStats {
    fn of(view: &QueueView, counters: &QueueCounters, interrupts: &InterruptCounts) -> QueueStats {
        QueueStats {
            enabled: view.enabled,
            kicks_exit: view.kicks_exit,
            kicks_missed: view.kicks_missed,
            requests: read(&counters.requests),
            errors: read(&counters.errors),
            bytes_read: read(&counters.bytes_read),
            bytes_written: read(&counters.bytes_written),
            wakeups: read(&counters.wakeups),
            spurious: read(&counters.spurious),
            batches: read(&counters.batches),
            suppressed: read(&counters.suppressed),
            system_calls: read(&counters.system_calls),
            interrupts: Interrupts::of(interrupts),
        }
    }
}

impl Interrupts {
    fn of(counts: &InterruptCounts) -> Interrupts {
        Interrupts {
            irqfd: read(&counts.irqfd),
            signal_msi: read(&counts.signal_msi),
            pending: read(&counts.pending),
            refused: read(&counts.refused),
            intx: read(&counts.intx),
            no_vector: read(&counts.no_vector),
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
