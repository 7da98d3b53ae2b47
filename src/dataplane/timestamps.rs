//! When each request passed which stage, for `doorbell trace`: the timestamps of a request, and the bounded buffer of a queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::backend::Op;

/// What a request asked for, as a trace shows it.
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
    /// Answered without the backend: get-id, and what was refused.
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

/// One request's way, CLOCK_MONOTONIC in nanoseconds, in this order (equal is possible).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimestamps {
    /// Number in the trace of its queue, from 1.
    pub id: u64,
    /// What it asked for.
    pub kind: RequestKind,
    /// Bytes.
    pub len: u64,
    /// The thread saw the kick; without one (polling, work found while busy) it began to look at the ring.
    pub seen: u64,
    /// The thread began to take requests from this ring.
    pub taken: u64,
    /// The chain was walked and understood.
    pub parsed: u64,
    /// The backend had it; one that works on the spot began.
    pub submitted: u64,
    /// The backend gave it back.
    pub completed: u64,
    /// Its batch began to end.
    pub ending: u64,
    /// The used index that shows it was stored.
    pub published: u64,
    /// The interrupt returned, or was queued to go with the thread's next wait (`queued`); 0 if the driver wanted none.
    pub signalled: u64,
    /// The thread that published it.
    pub thread: u32,
    /// The backend finished it later, not within `start`.
    pub deferred: bool,
    /// The interrupt was queued: no system call of its own, and the kernel makes it when the thread waits next.
    pub queued: bool,
}

/// The records of one queue.
#[derive(Debug, Default)]
pub struct Recorded {
    /// In the order of their publication.
    pub requests: Vec<RequestTimestamps>,
    /// Requests that found the buffer full.
    pub dropped: u64,
}

#[derive(Debug)]
struct Buffer {
    records: Recorded,
    capacity: usize,
}

/// One queue's switch and buffer. Any thread may switch; the queue's owner records.
#[derive(Debug, Default)]
pub struct QueueTrace {
    on: AtomicBool,
    /// Taken by the owner once per batch while tracing is on, never while it is off.
    buffer: Mutex<Option<Buffer>>,
}

impl QueueTrace {
    /// Records from the queue's next batch on, at most `capacity` requests; begins anew if it is on already.
    pub fn start(&self, capacity: usize) {
        let records = Recorded { requests: Vec::with_capacity(capacity), dropped: 0 };
        *self.buffer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Buffer { records, capacity });
        self.on.store(true, Ordering::Relaxed);
    }

    /// Ends it; `None` if it was not on.
    pub fn stop(&self) -> Option<Recorded> {
        self.on.store(false, Ordering::Relaxed);
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner).take();
        buffer.map(|buffer| buffer.records)
    }

    #[inline]
    pub(super) fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn append(&self, batch: &mut Vec<RequestTimestamps>) {
        if let Some(Buffer { records, capacity }) =
            &mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
        {
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
