//! Takes the requests of one queue from the ring to the backend and back. The event loop calls five functions:
//!
//! ```text
//!  a kick ──► woken ─────── kicks off: while the thread works, it looks at the ring without being notified
//!             process ───── pop, parse, start: passes what is available to the backend
//!  a CQE ───► complete ──── puts what the backend has finished into the used ring, not yet visible
//!             finish ────── one store of used.idx per batch, one decision: interrupt, hold, or nothing
//!  idle ────► arm ───────── kicks on, then one more look at the ring: only then may the thread sleep
//! ```

mod holds;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::moderation::Moderation;
use super::moderator::{Moderator, Verdict};
use super::request::{Status, Todo, parse};
use super::ring::{Chain, Head, Ring, RingError};
use super::setup::{QueueCounters, QueueCounts, QueueSetup};
use super::tracer::{RequestTracer, Tracer};
use crate::backend::{Backend, Op, Outcome, Submitter};
use crate::host::log;
use crate::host::monotonic_ns;

/// Runs one queue: takes requests from its ring, passes them to its backend, and publishes completions in batches.
///
/// It stays on the thread that owns the queue. On detach it moves once, to the thread that detaches it and publishes
/// the last completions.
pub struct Worker<S = RequestTracer> {
    setup: QueueSetup,
    ring: Ring,
    chain: Chain,
    in_flight: Vec<Option<InFlight>>,
    free: Vec<u32>,
    broken: bool,
    backend_calls: u64,
    moderator: Moderator,
    /// The hold counts of earlier activations and settings. The moderator's counts are added to them.
    holds_before: QueueCounts,
    /// Bytes of the requests that the current pass has started.
    moved: u64,
    /// Bytes of the requests at the backend.
    bytes_in_flight: u64,
    /// When the current pass began, in nanoseconds. Only with moderation.
    begun: u64,
    tracer: S,
}

/// A pass ends after it has started this many bytes. Its completions become visible to the driver, which can reap them
/// while the device continues.
const PASS_BYTES: u64 = 64 << 10;

/// While the backend has this many bytes, no further request is started. The drain of a queue waits for them, and so do
/// the guest's reset and the end of the program.
const MOST_IN_FLIGHT: u64 = 2 << 30;

/// What the worker needs to complete a request that the backend has.
#[derive(Debug)]
struct InFlight {
    head: Head,
    status: *mut u8,
    written: u32,
    op: Op,
    len: u64,
}

// SAFETY: `status` points into guest memory, which any thread may access. `setup.memory` keeps it alive.
unsafe impl Send for InFlight {}

fn add(counter: &AtomicU64, n: u64) {
    // There is one writer, so a load and a store are enough, and cheaper than a locked add.
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl<S: Tracer> Worker<S> {
    /// Creates a worker for a new queue.
    ///
    /// # Errors
    /// The rings are not in guest memory.
    pub fn new(mut setup: QueueSetup) -> Result<Worker<S>, RingError> {
        let ring = Ring::new(setup.memory.clone(), setup.layout)?;
        let slots = u32::from(setup.layout.size);
        setup.backend.reserve(slots as usize);
        Ok(Worker {
            ring,
            chain: Chain::default(),
            in_flight: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            broken: false,
            // The backend's count continues from an earlier activation.
            backend_calls: setup.backend.system_calls(),
            moderator: Moderator::new(setup.moderation.get()),
            holds_before: setup.counters.counts(),
            moved: 0,
            bytes_in_flight: 0,
            begun: 0,
            tracer: S::default(),
            setup,
        })
    }

    /// Returns the description that the worker was created from.
    pub fn setup(&self) -> &QueueSetup {
        &self.setup
    }

    fn counters(&self) -> &QueueCounters {
        &self.setup.counters
    }

    /// Returns the number of requests that the backend has not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() - self.free.len()
    }

    /// Returns whether the ring holds requests that could be started now.
    pub fn has_work(&self) -> bool {
        self.has_room() && self.ring.has_avail()
    }

    /// Whether a request may be started. The free list also limits a driver that offers one descriptor again and again.
    fn has_room(&self) -> bool {
        !self.broken && !self.free.is_empty() && self.bytes_in_flight < MOST_IN_FLIGHT
    }

    /// Call it when a kick has woken the thread. Asks the driver for no further kick until [`Worker::arm`].
    pub fn woken(&mut self) {
        self.tracer.woken();
        add(&self.counters().wakeups, 1);
        if !self.ring.has_avail() {
            add(&self.counters().spurious, 1);
        }
        self.ring.disable_kicks();
        // A device whose vectors fell back to messages wakes its queues for this.
        let calls = self.setup.interrupt.deliver_stranded();
        add(&self.counters().system_calls, calls);
    }

    /// Call it before the thread sleeps. Asks for kicks again. Returns whether a request came before the driver could
    /// see that.
    pub fn arm(&mut self) -> bool {
        let avail = self.ring.enable_kicks();
        if avail && self.has_work() {
            self.ring.disable_kicks();
            return true;
        }
        false
    }

    /// Starts the available requests, at most one queue size of them. Returns whether more are left.
    pub fn process(&mut self, submitter: &mut dyn Submitter) -> bool {
        self.tracer.taking(&self.setup.counters.trace, self.in_flight.len());
        if self.moderator.setting() != Moderation::Off {
            self.begun = monotonic_ns();
            self.moderator.arrived(self.begun);
        }
        let more = self.take(submitter);
        self.show_position();
        more
    }

    fn take(&mut self, submitter: &mut dyn Submitter) -> bool {
        self.moved = 0;
        for _ in 0..self.ring.size() {
            if self.moved >= PASS_BYTES {
                break;
            }
            if !self.has_room() {
                return false;
            }
            match self.ring.pop(&mut self.chain) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    self.stop(error);
                    return false;
                }
            }
            if let Err(error) = self.start(submitter) {
                self.stop(error);
                return false;
            }
        }
        self.has_work()
    }

    fn start(&mut self, submitter: &mut dyn Submitter) -> Result<(), RingError> {
        let head = self.chain.head;
        let parsed = parse(&mut self.chain, &self.setup.block)?;
        self.tracer.parsed();
        let request = match parsed.todo {
            Todo::Answer(status) => {
                self.tracer.answered();
                self.push_used(head, parsed.status, status, parsed.written);
                return Ok(());
            }
            Todo::Backend(request) => request,
        };
        let Some(slot) = self.free.pop() else { return Ok(()) };
        let (op, len) = (request.op, request.len);
        self.moved += len;
        self.bytes_in_flight += len;
        let (status, written) = (parsed.status, parsed.written);
        self.in_flight[slot as usize] = Some(InFlight { head, status, written, op, len });
        self.tracer.submitting(slot, op, len);
        let outcome = self.setup.backend.start(u64::from(slot), request, submitter);
        if matches!(outcome, Outcome::Pending) {
            self.tracer.queued(slot);
        }
        self.record(slot, outcome);
        Ok(())
    }

    /// Handles a completion for the backend.
    pub fn complete(&mut self, token: u64, result: i32, submitter: &mut dyn Submitter) {
        let slot = token as u32;
        // Ignore a token that is not in flight.
        if self.in_flight.get(slot as usize).is_some_and(Option::is_some) {
            let outcome = self.setup.backend.complete(token, result, submitter);
            self.record(slot, outcome);
        }
    }

    fn record(&mut self, slot: u32, outcome: Outcome) {
        let Outcome::Done(result) = outcome else { return };
        let Some(done) = self.in_flight[slot as usize].take() else { return };
        self.tracer.completed(slot);
        self.bytes_in_flight -= done.len;
        self.free.push(slot);
        let status = match result {
            Ok(()) => Status::Ok,
            Err(error) if is_unsupported(&error) => Status::Unsupp,
            Err(error) => {
                log_error(&self.setup.name, done.op, &error);
                Status::IoErr
            }
        };
        if status == Status::Ok {
            match done.op {
                Op::Read => add(&self.counters().bytes_read, done.len),
                Op::Write { .. } => add(&self.counters().bytes_written, done.len),
                Op::Flush | Op::Discard | Op::WriteZeroes { .. } => {}
            }
        }
        self.push_used(done.head, done.status, status, done.written);
    }

    fn push_used(&mut self, head: Head, at: *mut u8, status: Status, written: u32) {
        // SAFETY: `at` is a byte of a device-writable buffer in guest memory (`parse`).
        unsafe { at.write_volatile(status as u8) };
        add(&self.counters().requests, 1);
        if status != Status::Ok {
            add(&self.counters().errors, 1);
        }
        // After a failure, only the status byte is known to be written.
        self.ring.push(head, if status == Status::Ok { written } else { 1 });
    }

    /// Ends a batch: publishes its completions and sends at most one interrupt, or holds it (see `Moderator`). It runs
    /// on the thread that completes, because `Interrupt::deliver_by` chooses the path by the thread. See there for
    /// `later`.
    pub fn finish(&mut self, later: &mut dyn FnMut(RawFd) -> bool) {
        if !self.ring.has_unpublished() {
            return;
        }
        add(&self.counters().batches, 1);
        let completions = u32::from(self.ring.unpublished());
        self.tracer.ending();
        // used.idx is never held back: a guest that is in its handler, or polls, reaps without an interrupt.
        let wanted = self.ring.publish();
        self.tracer.published();
        match self.moderate(completions, wanted) {
            Verdict::Deliver => self.deliver(later),
            Verdict::Hold => self.tracer.held(),
            Verdict::Quiet => add(&self.counters().suppressed, 1),
        }
        let calls = self.setup.backend.system_calls();
        add(&self.counters().system_calls, calls - self.backend_calls);
        self.backend_calls = calls;
        self.tracer.flush(&self.setup.counters.trace);
        self.show_position();
    }

    fn deliver(&mut self, later: &mut dyn FnMut(RawFd) -> bool) {
        let delivery = self.setup.interrupt.deliver_by(later);
        self.tracer.interrupted(delivery.queued);
        add(&self.counters().system_calls, delivery.calls);
    }

    /// Stores the position of the queue for readers of the counters.
    fn show_position(&self) {
        let ((avail, used), in_flight) = (self.ring.indices(), self.in_flight() as u64);
        let position = u64::from(avail) | u64::from(used) << 16 | in_flight << 32;
        self.counters().position.store(position, Ordering::Relaxed);
    }

    /// Stops the queue: starts no further request, and asks the driver to reset the device.
    pub(super) fn stop(&mut self, why: impl fmt::Display) {
        if !std::mem::replace(&mut self.broken, true) {
            log::warn(&self.setup.name, format_args!("{why}; the device asks the guest for a reset"));
            (self.setup.broken)();
        }
    }

    /// Ends the worker and returns its backend, which can serve the next activation.
    pub fn into_backend(self) -> Box<dyn Backend> {
        self.setup.backend
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP)) || error.kind() == io::ErrorKind::Unsupported
}

fn log_error(name: &str, op: Op, error: &io::Error) {
    let what = match op {
        Op::Read => "read",
        Op::Write { .. } => "write",
        Op::Flush => "flush",
        Op::Discard => "discard",
        Op::WriteZeroes { .. } => "write-zeroes",
    };
    log::warn(name, format_args!("{what} failed: {error}; the guest gets IOERR"));
}
