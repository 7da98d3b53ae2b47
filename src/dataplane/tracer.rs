//! Takes the timestamps of a worker. While tracing is off, each place costs a predicted branch; while it is on, some
//! clock reads per request (`benches/tracer.rs` measures both).

use super::timestamps::{QueueTrace, RequestTimestamps};
use crate::backend::Op;
use crate::host::monotonic_ns;

/// Receives the events of a worker. It is a type parameter so that `benches/tracer.rs` can compare a worker with
/// tracing to one that was compiled without it: see [`NoTracer`].
pub trait Tracer: Default {
    /// A kick woke the thread.
    fn woken(&mut self);
    /// The worker begins to take requests. Tracing is switched on and off here.
    fn taking(&mut self, trace: &QueueTrace, slots: usize);
    /// A chain was parsed.
    fn parsed(&mut self);
    /// The worker passes the request that was parsed last to the backend, as `slot`.
    fn submitting(&mut self, slot: u32, op: Op, len: u64);
    /// The backend took the request and will complete it later.
    fn queued(&mut self, slot: u32);
    /// The request that was parsed last needs no backend.
    fn answered(&mut self);
    /// The backend has completed the request in `slot`.
    fn completed(&mut self, slot: u32);
    /// The worker begins to end the batch.
    fn ending(&mut self);
    /// The used index was stored.
    fn published(&mut self);
    /// The interrupt is held back: the batch ends with the interrupt of a later one, or alone when the hold expires.
    fn held(&mut self);
    /// The call that sends the interrupt returned, or the interrupt was queued.
    fn interrupted(&mut self, queued: bool);
    /// The batch is over.
    fn flush(&mut self, trace: &QueueTrace);
}

/// A tracer that compiles to nothing: the baseline for the cost of tracing.
#[derive(Debug, Default)]
pub struct NoTracer;

impl Tracer for NoTracer {
    fn woken(&mut self) {}
    fn taking(&mut self, _: &QueueTrace, _: usize) {}
    fn parsed(&mut self) {}
    fn submitting(&mut self, _: u32, _: Op, _: u64) {}
    fn queued(&mut self, _: u32) {}
    fn answered(&mut self) {}
    fn completed(&mut self, _: u32) {}
    fn ending(&mut self) {}
    fn published(&mut self) {}
    fn held(&mut self) {}
    fn interrupted(&mut self, _: bool) {}
    fn flush(&mut self, _: &QueueTrace) {}
}

/// Holds the timestamps of a worker's requests until they are published. While tracing is off, each method is one
/// branch.
#[derive(Debug, Default)]
pub struct RequestTracer(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    next: u64,
    seen: Option<u64>,
    /// The request that is being parsed and started.
    current: RequestTimestamps,
    /// Requests at the backend, by slot. `id` 0: the request started before tracing was on.
    in_flight: Vec<RequestTimestamps>,
    /// Requests that are completed and not published, and those whose interrupt is held.
    batch: Vec<RequestTimestamps>,
}

/// Each method checks one condition here and does its work in another function, so that only a compare and a jump are
/// compiled into the hot path.
impl Tracer for RequestTracer {
    #[inline]
    fn woken(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.seen = Some(monotonic_ns());
        }
    }

    #[inline]
    fn taking(&mut self, trace: &QueueTrace, slots: usize) {
        if trace.on() != self.0.is_some() {
            self.switch(trace, slots);
        }
        if let Some(recording) = &mut self.0 {
            recording.taking();
        }
    }

    #[inline]
    fn parsed(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.parsed();
        }
    }

    #[inline]
    fn submitting(&mut self, slot: u32, op: Op, len: u64) {
        if let Some(recording) = &mut self.0 {
            recording.submitting(slot, op, len);
        }
    }

    #[inline]
    fn queued(&mut self, slot: u32) {
        if let Some(recording) = &mut self.0 {
            recording.queued(slot);
        }
    }

    #[inline]
    fn answered(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.answered();
        }
    }

    #[inline]
    fn completed(&mut self, slot: u32) {
        if let Some(recording) = &mut self.0 {
            recording.completed(slot);
        }
    }

    #[inline]
    fn ending(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording
                .stamp_batch(|timestamps| timestamps.ending == 0, |timestamps, at| timestamps.ending = at);
        }
    }

    #[inline]
    fn published(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.stamp_batch(
                |timestamps| timestamps.published == 0,
                |timestamps, at| timestamps.published = at,
            );
        }
    }

    #[inline]
    fn held(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.stamp_batch(|_| true, |timestamps, _| timestamps.held = true);
        }
    }

    #[inline]
    fn interrupted(&mut self, queued: bool) {
        if let Some(recording) = &mut self.0 {
            recording.stamp_batch(
                |_| true,
                |timestamps, at| (timestamps.signalled, timestamps.queued) = (at, queued),
            );
        }
    }

    #[inline]
    fn flush(&mut self, trace: &QueueTrace) {
        if let Some(recording) = &mut self.0 {
            recording.flush(trace);
        }
    }
}

impl RequestTracer {
    #[cold]
    fn switch(&mut self, trace: &QueueTrace, slots: usize) {
        self.0 = trace.on().then(|| Recording::new(slots));
    }
}

impl Recording {
    fn new(slots: usize) -> Box<Recording> {
        Box::new(Recording {
            next: 0,
            seen: None,
            current: RequestTimestamps::default(),
            in_flight: vec![RequestTimestamps::default(); slots],
            batch: Vec::with_capacity(slots),
        })
    }

    #[cold]
    fn taking(&mut self) {
        self.current.taken = monotonic_ns();
        // The kick belongs only to the first pass after it.
        self.current.seen = self.seen.take().unwrap_or(self.current.taken);
    }

    #[cold]
    fn parsed(&mut self) {
        self.next += 1;
        let RequestTimestamps { seen, taken, .. } = self.current;
        self.current = RequestTimestamps {
            id: self.next,
            seen,
            taken,
            parsed: monotonic_ns(),
            ..RequestTimestamps::default()
        };
    }

    #[cold]
    fn submitting(&mut self, slot: u32, op: Op, len: u64) {
        if let Some(place) = self.in_flight.get_mut(slot as usize) {
            *place = RequestTimestamps { kind: op.into(), len, submitted: monotonic_ns(), ..self.current };
        }
    }

    #[cold]
    fn queued(&mut self, slot: u32) {
        if let Some(timestamps) = self.in_flight.get_mut(slot as usize) {
            (timestamps.submitted, timestamps.deferred) = (monotonic_ns(), true);
        }
    }

    #[cold]
    fn answered(&mut self) {
        let at = self.current.parsed;
        self.batch.push(RequestTimestamps { submitted: at, completed: at, ..self.current });
    }

    #[cold]
    fn completed(&mut self, slot: u32) {
        if let Some(timestamps) = self.in_flight.get_mut(slot as usize).map(std::mem::take)
            && timestamps.id != 0
        {
            self.batch.push(RequestTimestamps { completed: monotonic_ns(), ..timestamps });
        }
    }

    #[cold]
    fn stamp_batch(
        &mut self,
        which: impl Fn(&RequestTimestamps) -> bool,
        set: impl Fn(&mut RequestTimestamps, u64),
    ) {
        let at = monotonic_ns();
        self.batch
            .iter_mut()
            .filter(|timestamps| which(timestamps))
            .for_each(|timestamps| set(timestamps, at));
    }

    #[cold]
    fn flush(&mut self, trace: &QueueTrace) {
        if self.batch.iter().any(|timestamps| timestamps.held && timestamps.signalled == 0) {
            return;
        }
        let thread = thread_id();
        self.batch.iter_mut().for_each(|timestamps| timestamps.thread = thread);
        trace.append(&mut self.batch);
    }
}

fn thread_id() -> u32 {
    thread_local! {
        // SAFETY: gettid takes no arguments and cannot fail.
        static ID: u32 = unsafe { libc::gettid() } as u32;
    }
    ID.with(|id| *id)
}
