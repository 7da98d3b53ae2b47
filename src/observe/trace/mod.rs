//! Traces: in which stages each request spent its time.
//!
//! What lives here: the switch for the dataplane's timestamps of a whole VM, and what is made from them: a timeline for
//! the Perfetto viewer ([`timeline()`]), a page that goes through one request ([`page()`]), and a table of stages
//! ([`Summary`]). What may not: anything that runs while a request is in flight; the timestamps are taken in
//! [`crate::dataplane`].

mod page;
mod summary;
mod timeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::dataplane::{QueueCounters, RequestKind, RequestTimestamps};
use crate::virtio::VirtioBlk;

pub use page::page;
pub use summary::{Stage, Summary};
pub use timeline::timeline;

/// Requests kept per queue by default, in some 6 MiB per queue.
pub const DEFAULT_CAPACITY: usize = 1 << 16;
/// Most requests that may be kept per queue.
pub const MAX_CAPACITY: usize = 1 << 20;

/// This VM is being traced already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the VM is being traced already (run --trace, or another doorbell trace)")]
pub struct TracedAlready;

/// Switches tracing of a VM's queues, for one tracer at a time.
///
/// It holds no device: a recording may outlive the machine that the guest has reset.
pub struct Tracer {
    disks: Vec<(String, Vec<Arc<QueueCounters>>)>,
    busy: AtomicBool,
}

impl Tracer {
    /// A tracer of these disks.
    pub fn new(disks: &[Arc<VirtioBlk>]) -> Arc<Tracer> {
        let disks = disks.iter().map(|disk| (disk.config().name.clone(), disk.counters().to_vec())).collect();
        Arc::new(Tracer { disks, busy: AtomicBool::new(false) })
    }

    /// Records from now on: at most `capacity` requests per queue (1 to [`MAX_CAPACITY`]).
    ///
    /// # Errors
    /// The VM is being traced already.
    pub fn start(self: &Arc<Self>, capacity: usize) -> Result<Tracing, TracedAlready> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(TracedAlready);
        }
        for counters in self.disks.iter().flat_map(|(_, counters)| counters) {
            counters.trace.start(capacity.clamp(1, MAX_CAPACITY));
        }
        Ok(Tracing { tracer: self.clone() })
    }
}

/// A recording in progress. Drop ends it.
pub struct Tracing {
    tracer: Arc<Tracer>,
}

impl Tracing {
    /// Ends the recording and returns it.
    pub fn stop(self) -> Recording {
        let of_disk = |(name, counters): &(String, Vec<Arc<QueueCounters>>)| {
            let queues = counters.iter().enumerate().filter_map(|(queue, counters)| {
                let recorded = counters.trace.stop()?;
                let requests = recorded.requests.iter().map(Row::from).collect();
                Some(QueueRecording { device: name.clone(), queue, dropped: recorded.dropped, requests })
            });
            queues.collect::<Vec<_>>()
        };
        let queues = self.tracer.disks.iter().flat_map(of_disk).collect();
        Recording { pid: std::process::id(), threads: super::threads::names(), queues }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        for counters in self.tracer.disks.iter().flat_map(|(_, counters)| counters) {
            counters.trace.stop();
        }
        self.tracer.busy.store(false, Ordering::Release);
    }
}

/// The recording of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Process ID of the VMM.
    pub pid: u32,
    /// Its threads: ID and name.
    pub threads: Vec<(u32, String)>,
    /// One per queue.
    pub queues: Vec<QueueRecording>,
}

/// The recording of one queue.
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

/// [`RequestTimestamps`] as an array of numbers, which makes a long recording short in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row(pub [u64; FIELDS]);

/// Defines the conversions between [`RequestTimestamps`] and [`Row`] from one list of fields.
macro_rules! rows {
    ($($field:ident),+) => {
        const FIELDS: usize = [$(stringify!($field)),+].len();

        impl From<&RequestTimestamps> for Row {
            fn from(timestamps: &RequestTimestamps) -> Row {
                Row([$(timestamps.$field.number()),+])
            }
        }

        impl Row {
            /// The conversion back.
            pub fn timestamps(&self) -> RequestTimestamps {
                let [$($field),+] = self.0;
                RequestTimestamps { $($field: Number::of($field)),+ }
            }
        }
    };
}

rows!(
    id, kind, len, seen, taken, parsed, submitted, completed, ending, published, signalled, thread, deferred,
    queued, held
);

/// A value in a row.
trait Number {
    fn number(self) -> u64;
    fn of(number: u64) -> Self;
}

impl Number for u64 {
    fn number(self) -> u64 {
        self
    }

    fn of(number: u64) -> u64 {
        number
    }
}

impl Number for u32 {
    fn number(self) -> u64 {
        self.into()
    }

    fn of(number: u64) -> u32 {
        number as u32
    }
}

impl Number for bool {
    fn number(self) -> u64 {
        self.into()
    }

    fn of(number: u64) -> bool {
        number != 0
    }
}

impl Number for RequestKind {
    fn number(self) -> u64 {
        self as u64
    }

    fn of(number: u64) -> RequestKind {
        let known = [
            RequestKind::Read,
            RequestKind::Write,
            RequestKind::Flush,
            RequestKind::Discard,
            RequestKind::WriteZeroes,
        ];
        known.into_iter().find(|&asked| asked as u64 == number).unwrap_or(RequestKind::Answer)
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
