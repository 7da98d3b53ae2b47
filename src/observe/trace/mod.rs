//! Traces: where each request spent its time.
//!
//! What lives here: switching the dataplane's stamps on for a whole VM, and what becomes of them: a timeline for the
//! Perfetto viewer ([`timeline`]), and a table of stages ([`Summary`]). What may not: anything that runs while a
//! request is under way; the stamps are taken in [`crate::dataplane`].

mod summary;
mod timeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::dataplane::{Asked, Stamps};
use crate::virtio::VirtioBlk;

pub use summary::{Stage, Summary};
pub use timeline::timeline;

/// Requests kept per queue if nobody says otherwise: some 6 MiB each.
pub const DEFAULT_CAPACITY: usize = 1 << 16;
/// Most that may be kept per queue.
pub const MAX_CAPACITY: usize = 1 << 20;

/// Someone else traces this VM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the VM is being traced already (run --trace, or another doorbell trace)")]
pub struct TracedAlready;

/// Switches tracing of a VM's queues, for one tracer at a time.
pub struct Tracer {
    disks: Vec<Arc<VirtioBlk>>,
    busy: AtomicBool,
}

impl Tracer {
    /// For these disks.
    pub fn new(disks: Vec<Arc<VirtioBlk>>) -> Arc<Tracer> {
        Arc::new(Tracer { disks, busy: AtomicBool::new(false) })
    }

    /// Records from now on, at most `capacity` requests per queue (1 to [`MAX_CAPACITY`]).
    ///
    /// # Errors
    /// Somebody does already.
    pub fn start(self: &Arc<Self>, capacity: usize) -> Result<Tracing, TracedAlready> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(TracedAlready);
        }
        for counters in self.disks.iter().flat_map(|disk| disk.counters()) {
            counters.trace.start(capacity.clamp(1, MAX_CAPACITY));
        }
        Ok(Tracing { tracer: self.clone() })
    }
}

/// A recording under way; dropping it switches it off.
pub struct Tracing {
    tracer: Arc<Tracer>,
}

impl Tracing {
    /// Ends it and answers what was recorded.
    pub fn stop(self) -> Recording {
        let of_disk = |disk: &Arc<VirtioBlk>| {
            let queues = disk.counters().iter().enumerate().filter_map(|(queue, counters)| {
                let recorded = counters.trace.stop()?;
                let requests = recorded.requests.iter().map(Row::from).collect();
                Some(QueueRecording {
                    device: disk.config().name.clone(),
                    queue,
                    dropped: recorded.dropped,
                    requests,
                })
            });
            queues.collect::<Vec<_>>()
        };
        let queues = self.tracer.disks.iter().flat_map(of_disk).collect();
        Recording { pid: std::process::id(), threads: super::threads::names(), queues }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        for counters in self.tracer.disks.iter().flat_map(|disk| disk.counters()) {
            counters.trace.stop();
        }
        self.tracer.busy.store(false, Ordering::Release);
    }
}

/// What was recorded of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Process ID of the VMM.
    pub pid: u32,
    /// Its threads: ID and name.
    pub threads: Vec<(u32, String)>,
    /// One per queue.
    pub queues: Vec<QueueRecording>,
}

/// What was recorded of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecording {
    /// "disk0".
    pub device: String,
    /// Queue.
    pub queue: usize,
    /// Requests that found the buffer full.
    pub dropped: u64,
    /// In the order of their publication.
    pub requests: Vec<Row>,
}

/// [`Stamps`] as a row of numbers: there are many of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row(pub [u64; 13]);

impl From<&Stamps> for Row {
    fn from(s: &Stamps) -> Row {
        let thread = s.thread.into();
        let asked = s.asked as u64;
        Row([
            s.id,
            asked,
            s.len,
            s.seen,
            s.taken,
            s.parsed,
            s.submitted,
            s.completed,
            s.ending,
            s.published,
            s.rung,
            thread,
            s.deferred.into(),
        ])
    }
}

impl Row {
    /// Back to names.
    pub fn stamps(&self) -> Stamps {
        let [
            id,
            asked,
            len,
            seen,
            taken,
            parsed,
            submitted,
            completed,
            ending,
            published,
            rung,
            thread,
            deferred,
        ] = self.0;
        let asked = [Asked::Read, Asked::Write, Asked::Flush, Asked::Discard, Asked::WriteZeroes]
            .into_iter()
            .find(|&a| a as u64 == asked)
            .unwrap_or(Asked::Answer);
        let (thread, deferred) = (thread as u32, deferred != 0);
        Stamps {
            id,
            asked,
            len,
            seen,
            taken,
            parsed,
            submitted,
            completed,
            ending,
            published,
            rung,
            thread,
            deferred,
        }
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
