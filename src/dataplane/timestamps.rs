//! Timestamps of each request at each stage, for `doorbell trace`, and the bounded buffer of a queue for them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::Op;
use crate::host::Locked;

/// The kind of a request in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// A read.
    Read = 0,
    /// A write.
    Write = 1,
    /// A flush.
    Flush = 2,
    /// A discard.
    Discard = 3,
    /// A write of zeroes.
    WriteZeroes = 4,
    /// Completed without the backend: get-id, and refused requests.
    #[default]
    Answer = 5,
}

impl From<Op> for RequestKind {
    fn from(op: Op) -> RequestKind {
        match op {
            Op::Read => RequestKind::Read,
            Op::Write { .. } => RequestKind::Write,
            Op::Flush => RequestKind::Flush,
            Op::Discard => RequestKind::Discard,
            Op::WriteZeroes { .. } => RequestKind::WriteZeroes,
        }
    }
}

/// The timestamps of one request, CLOCK_MONOTONIC in nanoseconds. Each is at or after the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimestamps {
    /// Number in the trace of its queue, from 1.
    pub id: u64,
    /// The kind of the request.
    pub kind: RequestKind,
    /// Length in bytes.
    pub len: u64,
    /// The thread saw the kick. Without a kick (polling, or work found while busy): it began to look at the ring.
    pub seen: u64,
    /// The thread began to take requests from this ring.
    pub taken: u64,
    /// The chain was walked and parsed.
    pub parsed: u64,
    /// The backend took the request; a synchronous backend began to work.
    pub submitted: u64,
    /// The backend completed it.
    pub completed: u64,
    /// The worker began to end its batch.
    pub ending: u64,
    /// The used index that makes it visible was stored.
    pub published: u64,
    /// The call that sends the interrupt returned, or the interrupt was queued for the thread's next wait (`queued`); 0
    /// if the driver wanted none.
    pub signalled: u64,
    /// The thread that published it: its Linux thread ID.
    pub thread: u32,
    /// Whether the backend completed it later and not within `start`.
    pub deferred: bool,
    /// Whether the interrupt was queued: it cost no separate system call, and the kernel sends it at the thread's next
    /// wait.
    pub queued: bool,
    /// Whether its interrupt was held back until `signalled` ([`super::Moderation`]).
    pub held: bool,
}

/// The trace of one queue.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The requests in the order of publication.
    pub requests: Vec<RequestTimestamps>,
    /// How many requests found the buffer full.
    pub dropped: u64,
}

#[derive(Debug)]
struct Buffer {
    records: Recorded,
    capacity: usize,
}

/// The trace switch and buffer of one queue. Any thread may switch it; the queue's owner records.
#[derive(Debug, Default)]
pub struct QueueTrace {
    on: AtomicBool,
    /// The owner takes the lock once per batch while tracing is on, and never while it is off.
    buffer: Mutex<Option<Buffer>>,
}

impl QueueTrace {
    /// Starts recording with the queue's next batch, for at most `capacity` requests. Starts over if it is on already.
    pub fn start(&self, capacity: usize) {
        let records = Recorded { requests: Vec::with_capacity(capacity), dropped: 0 };
        *self.buffer.locked() = Some(Buffer { records, capacity });
        self.on.store(true, Ordering::Relaxed);
    }

    /// Stops recording and returns the trace; `None` if recording was off.
    pub fn stop(&self) -> Option<Recorded> {
        self.on.store(false, Ordering::Relaxed);
        let buffer = self.buffer.locked().take();
        buffer.map(|buffer| buffer.records)
    }

    #[inline]
    pub(super) fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn append(&self, batch: &mut Vec<RequestTimestamps>) {
        if let Some(Buffer { records, capacity }) = &mut *self.buffer.locked() {
            let room = capacity.saturating_sub(records.requests.len()).min(batch.len());
            records.requests.extend(batch.drain(..room));
            records.dropped += batch.len() as u64;
        }
        batch.clear();
    }
}

#[cfg(test)]
#[path = "timestamps_tests.rs"]
mod tests;
