//! `--stats FILE`: what each disk of a run did, as JSON.

use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::Failure;
use super::out_file::OutFile;
use crate::dataplane::{LoopHandle, QueueCounts, Sent};
use crate::virtio::VirtioBlk;
use crate::vm::Vm;

/// Name and version of the format.
const SCHEMA: &str = "doorbell-stats/1";

/// The file for the counts.
pub(super) struct StatsFile(OutFile);

impl StatsFile {
    pub(super) fn open(path: &Path) -> Result<StatsFile, Failure> {
        OutFile::open("--stats", path).map(StatsFile)
    }

    /// See [`OutFile::directory`].
    pub(super) fn directory(&self) -> Option<&Path> {
        self.0.directory()
    }

    /// Writes the counts of a machine that has stopped.
    pub(super) fn write(self, assembly: &Vm) -> Result<(), Failure> {
        self.0.write_pretty_json(&Stats {
            schema: SCHEMA,
            loops: assembly.io_loops().iter().map(LoopStats::of).collect(),
            disks: assembly.disks().iter().map(|disk| DiskStats::of(disk)).collect(),
            vfio: assembly.vfio().iter().map(|device| super::vfio::stats(device)).collect(),
        })
    }
}

#[derive(Serialize)]
struct Stats {
    schema: &'static str,
    loops: Vec<LoopStats>,
    disks: Vec<DiskStats>,
    vfio: Vec<serde_json::Value>,
}

/// An I/O thread, without its queues.
#[derive(Serialize)]
struct LoopStats {
    name: String,
    /// One system call each.
    waits: u64,
    poll_hits: u64,
}

impl LoopStats {
    fn of(handle: &LoopHandle) -> LoopStats {
        let counters = handle.counters();
        LoopStats {
            name: handle.name().into(),
            waits: counters.waits.load(Ordering::Relaxed),
            poll_hits: counters.poll_hits.load(Ordering::Relaxed),
        }
    }
}

#[derive(Serialize)]
struct DiskStats {
    name: String,
    serial: String,
    notify: String,
    complete: String,
    /// Feature bits that the driver took.
    features: u64,
    /// The last error of a host call; the device worked without what it asked for.
    last_error: Option<String>,
    queues: Vec<QueueStats>,
    config_interrupts: Option<Sent>,
}

#[derive(Serialize)]
struct QueueStats {
    enabled: bool,
    /// Not known without /proc.
    kicks_ioeventfd: Option<u64>,
    kicks_exit: u64,
    kicks_missed: u64,
    #[serde(flatten)]
    counts: QueueCounts,
    interrupts: Sent,
}

impl DiskStats {
    fn of(disk: &VirtioBlk) -> DiskStats {
        let view = disk.view();
        let interrupts = disk.interrupts();
        let queues = view.queues.iter().zip(disk.counters()).zip(&interrupts).enumerate();
        DiskStats {
            name: view.name,
            serial: disk.config().serial.clone(),
            notify: view.notify.to_string(),
            complete: disk.device_interrupts().path().to_string(),
            features: view.features,
            last_error: view.last_error,
            queues: queues
                .map(|(n, ((queue, counters), interrupt))| QueueStats {
                    enabled: queue.enabled,
                    kicks_ioeventfd: disk.kicks_ioeventfd(n),
                    kicks_exit: queue.kicks_exit,
                    kicks_missed: queue.kicks_missed,
                    counts: counters.counts(),
                    interrupts: interrupt.counts().sent(),
                })
                .collect(),
            // The last vector is the configuration's.
            config_interrupts: interrupts.last().map(|i| i.counts().sent()),
        }
    }
}
