use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::handle::{Control, DataplaneError, LoopConfig, LoopHandle};
use super::poll::PollWindow;
use super::ring::RingError;
use super::setup::QueueSetup;
use super::waiter::{Event, Tagged, WaitMode, Waiter};
use super::worker::Worker;
use crate::host::log;

/// What a source's callback wants of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on watching.
    Continue,
    /// Stop watching this source.
    Remove,
    /// End the loop.
    Stop,
}

struct Seat {
    worker: Box<Worker>,
    /// There may be requests in the ring.
    ready: bool,
    /// Kicks are on: the thread may sleep.
    armed: bool,
    /// Whoever waits for the drained worker.
    leaving: Option<Sender<Box<Worker>>>,
}

struct Source {
    fd: OwnedFd,
    callback: Box<dyn FnMut() -> Flow>,
}

enum Watched {
    Queue(u32),
    Source(u32),
    Wake,
}

/// One thread's loop: queues, and for the main loop other file descriptors too.
///
/// A turn: sleep (or poll, or neither if there is work), start everything that is available on the queues that woke
/// it, take the completions, then end each queue's batch: one publication, one decision, at most one interrupt.
pub struct EventLoop {
    waiter: Waiter,
    seats: Vec<Option<Seat>>,
    sources: Vec<Option<Source>>,
    watched: Vec<Watched>,
    control: Receiver<Control>,
    handle: LoopHandle,
    poll: PollWindow,
    stopping: bool,
    turns: u32,
    events: Vec<Event>,
}

impl EventLoop {
    /// A loop for the calling thread.
    ///
    /// # Errors
    /// No io_uring or epoll to be had.
    pub fn new(config: &LoopConfig) -> Result<EventLoop, DataplaneError> {
        let fail = |source| DataplaneError::Loop { name: config.name.clone(), source };
        let mut waiter = if config.uring { Waiter::uring() } else { Waiter::epoll() }.map_err(fail)?;
        let (handle, control, wake) = LoopHandle::new(&config.name).map_err(fail)?;
        waiter.add(0, wake.as_raw_fd(), true).map_err(fail)?;
        Ok(EventLoop {
            waiter,
            seats: Vec::new(),
            sources: Vec::new(),
            watched: vec![Watched::Wake],
            control,
            handle,
            poll: PollWindow::new(config.poll_max_ns),
            stopping: false,
            turns: 0,
            events: Vec::new(),
        })
    }

    /// For other threads.
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Calls `callback` on this thread whenever `fd` has input.
    ///
    /// # Errors
    /// The descriptor cannot be watched (a regular file, with epoll).
    pub fn add_source(&mut self, fd: OwnedFd, callback: Box<dyn FnMut() -> Flow>) -> io::Result<()> {
        let tag = self.watched.len() as u32;
        self.waiter.add(tag, fd.as_raw_fd(), false)?;
        self.watched.push(Watched::Source(self.sources.len() as u32));
        self.sources.push(Some(Source { fd, callback }));
        Ok(())
    }

    /// Runs until a source or [`LoopHandle::stop`] ends it; returns with all queues drained.
    ///
    /// # Errors
    /// Waiting failed, which is a bug or a host in distress.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stopping || self.in_flight() > 0 {
            self.turn()?;
        }
        for seat in self.seats.iter_mut().flatten() {
            seat.worker.finish(&mut |_| false);
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
                Event::Completion { worker, token, result } => {
                    let submitter = &mut Tagged { waiter: &mut self.waiter, worker };
                    if let Some(Some(seat)) = self.seats.get_mut(worker as usize) {
                        seat.worker.complete(token, result, submitter);
                        // A slot is free again.
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

    /// Collects events: without a sleep if there is work, after a busy-poll if that is wanted, else by sleeping.
    fn collect_events(&mut self) -> io::Result<()> {
        let busy = self.has_ready() || self.poll_rings() || !self.arm();
        // A queue that is never empty must not keep the other descriptors from being looked at.
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
        self.waiter.wait(mode, &mut self.events)?;
        if !busy {
            self.poll.woken(slept);
        }
        Ok(())
    }

    fn has_ready(&self) -> bool {
        self.seats.iter().flatten().any(|seat| seat.ready)
    }

    /// Watches the rings for as long as the window says; `true` if something came. Kicks are off meanwhile.
    fn poll_rings(&mut self) -> bool {
        let Some(mut deadline) = self.poll.start() else { return false };
        if self.waiter.has_unsubmitted() {
            // First the kernel gets what is queued; it would lie there for as long as the rings are empty.
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
            if deadline.passed() {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Switches kicks on before a sleep; `false` if work came before the driver could know.
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
        match self.watched.get(tag as usize) {
            Some(&Watched::Queue(id)) => {
                if let Some(Some(seat)) = self.seats.get_mut(id as usize) {
                    (seat.ready, seat.armed) = (true, false);
                    seat.worker.woken();
                }
            }
            Some(&Watched::Source(index)) => self.call(tag, index),
            // Messages are looked for in every turn.
            Some(Watched::Wake) | None => {}
        }
    }

    fn call(&mut self, tag: u32, index: u32) {
        let Some(Some(source)) = self.sources.get_mut(index as usize) else { return };
        match (source.callback)() {
            Flow::Continue => {}
            Flow::Stop => self.stopping = true,
            Flow::Remove => {
                let _ = self.waiter.remove(tag, source.fd.as_raw_fd());
                self.sources[index as usize] = None;
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
                    if let Some(Some(seat)) = self.seats.get_mut(id as usize) {
                        (seat.leaving, seat.ready) = (Some(reply), false);
                    }
                }
            }
        }
    }

    fn seat(&mut self, setup: QueueSetup) -> Result<u32, RingError> {
        let worker = Box::new(Worker::new(setup)?);
        let id = self.seats.len() as u32;
        let tag = self.watched.len() as u32;
        let kick = worker.setup().kick.as_raw_fd();
        if let Err(error) = self.waiter.add(tag, kick, true) {
            log::warn(&worker.setup().name, format_args!("cannot watch its kicks: {error}"));
        }
        self.watched.push(Watched::Queue(id));
        self.seats.push(Some(Seat { worker, ready: true, armed: false, leaving: None }));
        Ok(id)
    }

    /// Starts what is available and ends the batches of all queues.
    fn work(&mut self) {
        for id in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[id] else { continue };
            if seat.ready && !self.stopping && seat.leaving.is_none() {
                let submitter = &mut Tagged { waiter: &mut self.waiter, worker: id as u32 };
                seat.ready = seat.worker.process(submitter);
            } else if self.stopping {
                seat.ready = false;
            }
            if seat.leaving.is_none() {
                seat.worker.finish(&mut |event| self.waiter.queue_signal(event));
            } else if seat.worker.in_flight() == 0 {
                self.release(id);
            }
        }
    }

    fn release(&mut self, id: usize) {
        let Some(seat) = self.seats[id].take() else { return };
        let is_it = |w: &Watched| matches!(w, Watched::Queue(queue) if *queue as usize == id);
        if let Some(tag) = self.watched.iter().position(is_it) {
            let _ = self.waiter.remove(tag as u32, seat.worker.setup().kick.as_raw_fd());
        }
        if let Some(reply) = seat.leaving {
            let _ = reply.send(seat.worker);
        }
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
