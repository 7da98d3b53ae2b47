//! When each request passed which stage, for `doorbell trace`. Off, it costs a predicted branch; on, some clock reads
//! per request and a bounded buffer per queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::backend::Op;

/// What a request asked for, as a trace shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Asked {
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

impl From<Op> for Asked {
    fn from(op: Op) -> Asked {
        match op {
            Op::Read => Asked::Read,
            Op::Write { .. } => Asked::Write,
            Op::Flush => Asked::Flush,
            Op::Discard => Asked::Discard,
            Op::WriteZeroes { .. } => Asked::WriteZeroes,
        }
    }
}

/// One request's way, CLOCK_MONOTONIC in nanoseconds, in this order (equal is possible).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Number in the trace of its queue, from 1.
    pub id: u64,
    /// What it asked for.
    pub asked: Asked,
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
    /// The ring-back returned; 0 if the driver wanted none.
    pub rung: u64,
    /// The thread that published it.
    pub thread: u32,
    /// The backend finished it later, not within `start`.
    pub deferred: bool,
}

/// The records of one queue.
#[derive(Debug, Default)]
pub struct Recorded {
    /// In the order of their publication.
    pub requests: Vec<Stamps>,
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

    fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn append(&self, batch: &mut Vec<Stamps>) {
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

/// The stamps of the requests that a worker has under way. Every method is one branch as long as tracing is off.
#[derive(Debug, Default)]
pub(super) struct Stamper(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    next: u64,
    seen: Option<u64>,
    /// The request that is being started.
    current: Stamps,
    /// By slot; `id` 0: begun before tracing was on.
    in_flight: Vec<Stamps>,
    /// Completed and not published.
    batch: Vec<Stamps>,
}

impl Stamper {
    /// A kick woke the thread.
    pub fn woken(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.seen = Some(monotonic_ns());
        }
    }

    /// The worker begins to take requests: the place where tracing is switched.
    pub fn taking(&mut self, trace: &QueueTrace, slots: usize) {
        if trace.on() != self.0.is_some() {
            self.0 = trace.on().then(|| Recording::new(slots));
        }
        if let Some(recording) = &mut self.0 {
            recording.current.taken = monotonic_ns();
            // Only the first pass after a kick belongs to it.
            recording.current.seen = recording.seen.take().unwrap_or(recording.current.taken);
        }
    }

    pub fn parsed(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.parsed();
        }
    }

    /// The request that was parsed last goes to the backend now, under `slot`.
    pub fn submitting(&mut self, slot: u32, op: Op, len: u64) {
        if let Some(recording) = &mut self.0
            && let Some(place) = recording.in_flight.get_mut(slot as usize)
        {
            *place = Stamps { asked: op.into(), len, submitted: monotonic_ns(), ..recording.current };
        }
    }

    /// The backend took it and works on.
    pub fn queued(&mut self, slot: u32) {
        if let Some(recording) = &mut self.0
            && let Some(stamps) = recording.in_flight.get_mut(slot as usize)
        {
            (stamps.submitted, stamps.deferred) = (monotonic_ns(), true);
        }
    }

    /// The request that was parsed last needs no backend.
    pub fn answered(&mut self) {
        if let Some(recording) = &mut self.0 {
            let at = recording.current.parsed;
            recording.batch.push(Stamps { submitted: at, completed: at, ..recording.current });
        }
    }

    pub fn completed(&mut self, slot: u32) {
        if let Some(recording) = &mut self.0
            && let Some(stamps) = recording.in_flight.get_mut(slot as usize)
        {
            let stamps = std::mem::take(stamps);
            if stamps.id != 0 {
                recording.batch.push(Stamps { completed: monotonic_ns(), ..stamps });
            }
        }
    }

    pub fn ending(&mut self) {
        self.stamp_batch(|stamps, at| stamps.ending = at);
    }

    pub fn published(&mut self) {
        self.stamp_batch(|stamps, at| stamps.published = at);
    }

    pub fn rung(&mut self) {
        self.stamp_batch(|stamps, at| stamps.rung = at);
    }

    fn stamp_batch(&mut self, set: impl Fn(&mut Stamps, u64)) {
        if let Some(recording) = &mut self.0 {
            let at = monotonic_ns();
            recording.batch.iter_mut().for_each(|stamps| set(stamps, at));
        }
    }

    /// The batch is over.
    pub fn flush(&mut self, trace: &QueueTrace) {
        if let Some(recording) = &mut self.0 {
            let thread = thread_id();
            recording.batch.iter_mut().for_each(|stamps| stamps.thread = thread);
            trace.append(&mut recording.batch);
        }
    }
}

impl Recording {
    fn new(slots: usize) -> Box<Recording> {
        Box::new(Recording {
            next: 0,
            seen: None,
            current: Stamps::default(),
            in_flight: vec![Stamps::default(); slots],
            batch: Vec::with_capacity(slots),
        })
    }

    fn parsed(&mut self) {
        self.next += 1;
        let Stamps { seen, taken, .. } = self.current;
        self.current = Stamps { id: self.next, seen, taken, parsed: monotonic_ns(), ..Stamps::default() };
    }
}

/// CLOCK_MONOTONIC, the clock of [`Stamps`], in nanoseconds; from the vDSO, without a system call.
pub fn monotonic_ns() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer; the clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

fn thread_id() -> u32 {
    thread_local! {
        // SAFETY: takes nothing and cannot fail.
        static ID: u32 = unsafe { libc::gettid() } as u32;
    }
    ID.with(|id| *id)
}

#[cfg(test)]
#[path = "stamps_tests.rs"]
mod tests;
