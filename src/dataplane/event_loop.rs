use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;

use super::handle::{Control, DataplaneError, LoopConfig, LoopHandle};
use super::lookahead::Lookahead;
use super::poll::{Deadline, PollWindow};
use super::ring::RingError;
use super::seat::{Seat, Seats, is_ready, seat_id, seat_of};
use super::setup::QueueSetup;
use super::waiter::{Event, Tagged, WaitMode, Waiter};
use super::worker::Worker;
use crate::host::log;
use crate::host::monotonic_ns;

/// What the loop does after a source's callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Keep watching this source.
    Continue,
    /// Stop watching this source.
    Remove,
    /// End the loop.
    Stop,
}

struct Source {
    fd: OwnedFd,
    callback: Box<dyn FnMut() -> Flow>,
}

/// The tag of a watched descriptor is a seat's id, or one of these bits together with the number of a source.
const SOURCE: u32 = 1 << 29;
const WAKE: u32 = 1 << 30;
/// The most events of one wait.
const EVENTS: usize = 256;

/// The event loop of one thread. It runs queues; the main loop also watches other file descriptors.
///
/// One turn: sleep (or poll, or neither if there is work), take the completions, start everything that is available
/// on the queues that woke it, and end each queue's batch: one publication, one decision, at most one interrupt.
pub struct EventLoop {
    waiter: Waiter,
    seats: Seats,
    sources: Vec<Option<Source>>,
    /// Number of attachments so far; it gives each seat its generation.
    attached: u16,
    lookahead: Lookahead,
    control: Receiver<Control>,
    handle: LoopHandle,
    poll: PollWindow,
    stopping: bool,
    turns: u32,
    events: Vec<Event>,
}

impl EventLoop {
    /// Creates a loop for the calling thread.
    ///
    /// # Errors
    /// The host cannot create the io_uring or the epoll.
    pub fn new(config: &LoopConfig) -> Result<EventLoop, DataplaneError> {
        let fail = |source| DataplaneError::Loop { name: config.name.clone(), source };
        let mut waiter = if config.uring { Waiter::uring() } else { Waiter::epoll() }.map_err(fail)?;
        let (handle, control, wake) = LoopHandle::new(&config.name).map_err(fail)?;
        waiter.add(WAKE, wake.as_raw_fd(), true).map_err(fail)?;
        Ok(EventLoop {
            waiter,
            seats: Seats::default(),
            sources: Vec::new(),
            attached: 0,
            lookahead: Lookahead::default(),
            control,
            handle,
            poll: PollWindow::new(config.poll_max_ns),
            stopping: false,
            turns: 0,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Returns the handle through which other threads reach this loop.
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Watches `fd`, and calls `callback` on this thread whenever it has input.
    ///
    /// # Errors
    /// The descriptor cannot be watched, such as a regular file with epoll (EPERM).
    pub fn add_source(&mut self, fd: OwnedFd, callback: Box<dyn FnMut() -> Flow>) -> io::Result<()> {
        let tag = SOURCE | self.sources.len() as u32;
        self.waiter.add(tag, fd.as_raw_fd(), false)?;
        self.sources.push(Some(Source { fd, callback }));
        Ok(())
    }

    /// Runs until a source or [`LoopHandle::stop`] ends the loop. When it returns, all queues are drained.
    ///
    /// # Errors
    /// The system call that waits failed: a bug, or the host is out of memory.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stopping || self.in_flight() > 0 {
            self.turn()?;
        }
        for seat in self.seats.iter_mut().flatten() {
            seat.worker.finish(&mut |_| false);
            seat.worker.release_held();
        }
        if self.waiter.has_unsubmitted() {
            self.waiter.wait(WaitMode::Look, &mut self.events)?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.seats.iter().flatten().map(|seat| seat.worker.in_flight()).sum()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.collect_events()?;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Ready(tag) => self.ready(tag),
                Event::Failed { tag, errno } => self.unwatched(tag, io::Error::from_raw_os_error(errno))?,
                Event::Completion { worker, token, result } => {
                    if let Some(seat) = seat_of(&mut self.seats, worker) {
                        let submitter = &mut Tagged { waiter: &mut self.waiter, worker };
                        seat.worker.complete(token, result, submitter);
                        // The completion has freed a slot, so requests may start that found none.
                        seat.ready |= seat.worker.has_work();
                    }
                }
            }
        }
        self.events = events;
        if !self.control.is_empty() {
            self.handle_control();
        }
        self.work();
        Ok(())
    }

    /// Collects events. Sleeps only if there is no work and no interrupt is held, and the busy-poll found nothing.
    fn collect_events(&mut self) -> io::Result<()> {
        // From cheap to expensive: the first that is true ends the search. `arm` must be the last step before a sleep.
        // It switches kicks on and then looks at the rings once more, so a request that came before needs no kick.
        let busy = self.has_ready() || self.looks_first() || self.watch_rings() || !self.arm();
        // A busy loop makes no system call unless there is something to submit or to reap. But a queue that is never
        // empty must not starve the other descriptors, so every 256th turn looks at them.
        self.turns = self.turns.wrapping_add(1);
        let look =
            self.waiter.has_completions() || self.waiter.has_unsubmitted() || self.turns.is_multiple_of(256);
        if busy && !look {
            return Ok(());
        }
        let mode = if busy { WaitMode::Look } else { WaitMode::Sleep };
        let counters = self.handle.counters();
        counters.waits.store(counters.waits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let slept = self.poll.sleeping();
        let submitted = self.waiter.queued_requests() > 0;
        self.waiter.wait(mode, &mut self.events)?;
        if !busy {
            self.poll.woken(slept);
        } else if submitted {
            self.lookahead.looked(self.events.iter().any(|event| matches!(event, Event::Completion { .. })));
        }
        Ok(())
    }

    /// Whether to submit the queued requests and look for completions at once, while kicks are off. This pays if
    /// requests complete during submission, as reads from the page cache do: the guest submits more without a kick.
    fn looks_first(&mut self) -> bool {
        self.waiter.queued_requests() > 0 && self.lookahead.pays()
    }

    fn has_ready(&self) -> bool {
        self.seats.iter().flatten().any(|seat| seat.ready)
    }

    /// Watches the rings with kicks off, while an interrupt is held and for the length of the busy-poll window. `true`:
    /// something came, or must be submitted first. `false`: no interrupt is held any more, and the thread may sleep.
    fn watch_rings(&mut self) -> bool {
        let mut held = self.seats.iter().flatten().any(|seat| seat.worker.is_held());
        let mut window = self.poll.start();
        if !held && window.is_none() {
            return false;
        }
        if self.waiter.has_unsubmitted() {
            // Submit first: otherwise the queued entries would wait for as long as the rings are empty.
            return true;
        }
        loop {
            let mut found = false;
            for seat in self.seats.iter_mut().flatten() {
                if seat.leaving.is_none() && seat.worker.has_work() {
                    (seat.ready, found) = (true, true);
                }
            }
            if found || self.waiter.has_completions() || !self.control.is_empty() {
                let counters = self.handle.counters();
                counters.poll_hits.store(counters.poll_hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                return true;
            }
            if held {
                let now = monotonic_ns();
                held = false;
                for seat in self.seats.iter_mut().flatten() {
                    held |= seat.worker.is_held() && seat.worker.check_held(now);
                }
            } else if window.as_mut().is_none_or(Deadline::passed) {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Switches kicks on before a sleep. Returns `false` if a request came before the driver could see that.
    fn arm(&mut self) -> bool {
        let mut quiet = true;
        for seat in self.seats.iter_mut().flatten().filter(|seat| !seat.armed && seat.leaving.is_none()) {
            seat.armed = true;
            if seat.worker.arm() {
                (seat.ready, seat.armed, quiet) = (true, false, false);
            }
        }
        quiet
    }

    fn ready(&mut self, tag: u32) {
        // WAKE needs no action here: every turn looks for messages.
        if tag & SOURCE != 0 {
            self.call(tag);
        } else if tag != WAKE
            && let Some(seat) = seat_of(&mut self.seats, tag)
        {
            (seat.ready, seat.armed) = (true, false);
            seat.worker.woken();
        }
    }

    /// Handles a descriptor that can no longer be watched, because of `error`.
    fn unwatched(&mut self, tag: u32, error: io::Error) -> io::Result<()> {
        if tag == WAKE {
            return Err(error);
        }
        if tag & SOURCE != 0 {
            log::warn(self.handle.name(), format_args!("cannot watch a descriptor any more: {error}"));
            if let Some(source) = self.sources.get_mut((tag & !SOURCE) as usize) {
                *source = None;
            }
        } else if let Some(seat) = seat_of(&mut self.seats, tag) {
            seat.worker.stop(format_args!("cannot watch its kicks: {error}"));
        }
        Ok(())
    }

    fn call(&mut self, tag: u32) {
        let index = (tag & !SOURCE) as usize;
        let Some(Some(source)) = self.sources.get_mut(index) else { return };
        match (source.callback)() {
            Flow::Continue => {}
            Flow::Stop => self.stopping = true,
            Flow::Remove => {
                let _ = self.waiter.remove(tag, source.fd.as_raw_fd());
                self.sources[index] = None;
            }
        }
    }

    fn handle_control(&mut self) {
        while let Ok(message) = self.control.try_recv() {
            match message {
                Control::Stop => self.stopping = true,
                Control::Attach(setup, reply) => {
                    let _ = reply.send(self.seat(*setup));
                }
                Control::Detach(id, reply) => {
                    if let Some(seat) = seat_of(&mut self.seats, id) {
                        seat.worker.release_held();
                        (seat.leaving, seat.ready) = (Some(reply), false);
                    }
                }
            }
        }
    }

    fn seat(&mut self, setup: QueueSetup) -> Result<u32, RingError> {
        let mut worker = Box::new(Worker::new(setup)?);
        // Reuse the place of a detached queue, so that a guest that resets its device again and again uses no memory.
        let place = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        self.attached = self.attached.wrapping_add(1);
        let generation = self.attached;
        let id = seat_id(place, generation);
        let kick = worker.setup().kick.as_raw_fd();
        if let Err(error) = self.waiter.add(id, kick, true) {
            worker.stop(format_args!("cannot watch its kicks: {error}"));
        }
        let seat = Seat { worker, ready: true, armed: false, leaving: None, generation };
        if place == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[place] = Some(seat);
        Ok(id)
    }

    /// Ends the batches of all queues and starts what is available.
    fn work(&mut self) {
        for place in 0..self.seats.len() {
            let others = || self.seats.iter().enumerate().any(|(n, seat)| n != place && is_ready(seat));
            // The thread's next wait sends a queued interrupt. So queue it only if nothing else in this turn delays it.
            let alone = !others();
            let Some(seat) = &mut self.seats[place] else { continue };
            if seat.leaving.is_some() {
                if seat.worker.in_flight() == 0 {
                    self.release(place);
                }
                continue;
            }
            let starts = seat.ready && !self.stopping;
            seat.ready &= starts;
            // Publish completions first, so that no finished request waits for one that has not started.
            seat.worker.finish(&mut |event| alone && !starts && self.waiter.queue_signal(event));
            if starts {
                let worker = seat_id(place, seat.generation);
                let submitter = &mut Tagged { waiter: &mut self.waiter, worker };
                seat.ready = seat.worker.process(submitter);
                let more = seat.ready;
                seat.worker.finish(&mut |event| alone && !more && self.waiter.queue_signal(event));
            }
        }
    }

    fn release(&mut self, place: usize) {
        let Some(seat) = self.seats[place].take() else { return };
        let _ = self.waiter.remove(seat_id(place, seat.generation), seat.worker.setup().kick.as_raw_fd());
        if let Some(reply) = seat.leaving {
            let _ = reply.send(seat.worker);
        }
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
