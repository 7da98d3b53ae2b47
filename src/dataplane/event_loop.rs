use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::interrupt::enter_io_thread;
use super::poll::PollWindow;
use super::ring::RingError;
use super::setup::QueueSetup;
use super::waiter::{Event, Patience, Tagged, Waiter};
use super::worker::Worker;
use crate::backend::Backend;

/// Why the dataplane could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A loop could not be made.
    #[error("cannot make the event loop of {name}: {source}")]
    Loop {
        /// Thread name.
        name: String,
        /// errno.
        source: io::Error,
    },
    /// The rings that the driver gave are unusable.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The loop has ended.
    #[error("thread {0} has ended")]
    Ended(String),
}

/// How a loop is to run.
#[derive(Clone, Debug, Default)]
pub struct LoopConfig {
    /// Thread name, as `ps -L` shows it (15 bytes).
    pub name: String,
    /// Sleep in an io_uring, which backends of kind io_uring need; else in an epoll.
    pub uring: bool,
    /// Longest busy-poll before a sleep, in nanoseconds; 0: none.
    pub poll_max_ns: u64,
    /// CPU to stay on.
    pub cpu: Option<usize>,
}

/// What a loop did, apart from its queues.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCounters {
    /// Waits: `epoll_wait` or `io_uring_enter`, one system call each.
    pub waits: AtomicU64,
    /// Waits that a busy-poll made needless.
    pub poll_hits: AtomicU64,
}

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

enum Control {
    Attach(Box<QueueSetup>, Sender<Result<u32, RingError>>),
    Detach(u32, Sender<Box<Worker>>),
    Stop,
}

/// A loop to be reached from other threads.
#[derive(Clone)]
pub struct LoopHandle {
    name: Arc<str>,
    control: Sender<Control>,
    wake: Arc<EventFd>,
    counters: Arc<LoopCounters>,
}

impl LoopHandle {
    /// Gives a queue to the loop, which looks at its ring at once: a kick that came before is not lost.
    ///
    /// Must not be called on the loop's own thread.
    ///
    /// # Errors
    /// Unusable rings, or the loop has ended.
    pub fn attach(&self, setup: QueueSetup) -> Result<Attachment, DataplaneError> {
        let (reply, answer) = bounded(1);
        self.send(Control::Attach(Box::new(setup), reply))?;
        let id = answer.recv().map_err(|_| self.ended())??;
        Ok(Attachment { id, handle: self.clone() })
    }

    /// Ends the loop once its queues have drained. Does nothing if it has ended.
    pub fn stop(&self) {
        let _ = self.send(Control::Stop);
    }

    /// Thread name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts.
    pub fn counters(&self) -> &LoopCounters {
        &self.counters
    }

    fn send(&self, message: Control) -> Result<(), DataplaneError> {
        self.control.send(message).map_err(|_| self.ended())?;
        let _ = self.wake.write(1);
        Ok(())
    }

    fn ended(&self) -> DataplaneError {
        DataplaneError::Ended(self.name.to_string())
    }
}

/// A queue at a loop.
pub struct Attachment {
    id: u32,
    handle: LoopHandle,
}

impl Attachment {
    /// Takes the queue back: no request is started any more, those in flight complete, and the calling thread
    /// publishes them and rings the guest for them. When it returns nothing touches the rings. Answers the backend;
    /// `None` if the loop has ended (it drained its queues then).
    ///
    /// Must not be called on the loop's own thread.
    pub fn detach(self) -> Option<Box<dyn Backend>> {
        let (reply, answer) = bounded(1);
        self.handle.send(Control::Detach(self.id, reply)).ok()?;
        let mut worker = answer.recv().ok()?;
        worker.finish();
        Some(worker.into_backend())
    }
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
/// it, take the completions, then end each queue's batch: one publication, one decision, at most one ring-back.
pub struct EventLoop {
    waiter: Waiter,
    seats: Vec<Option<Seat>>,
    sources: Vec<Option<Source>>,
    watched: Vec<Watched>,
    control: Receiver<Control>,
    handle: LoopHandle,
    poll: PollWindow,
    stopping: bool,
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
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(fail)?);
        waiter.add(0, wake.as_raw_fd(), true).map_err(fail)?;
        let (sender, control) = unbounded();
        let handle =
            LoopHandle { name: config.name.as_str().into(), control: sender, wake, counters: Arc::default() };
        Ok(EventLoop {
            waiter,
            seats: Vec::new(),
            sources: Vec::new(),
            watched: vec![Watched::Wake],
            control,
            handle,
            poll: PollWindow::new(config.poll_max_ns),
            stopping: false,
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
            seat.worker.finish();
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.seats.iter().flatten().map(|seat| seat.worker.in_flight()).sum()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.gather()?;
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
        self.work();
        Ok(())
    }

    /// Collects events: without a sleep if there is work, after a busy-poll if that is wanted, else by sleeping.
    fn gather(&mut self) -> io::Result<()> {
        let busy = self.has_ready() || self.poll_rings() || !self.arm();
        if busy && !self.waiter.has_completions() && !self.waiter.has_unsubmitted() {
            return Ok(());
        }
        let patience = if busy { Patience::Look } else { Patience::Sleep };
        let counters = &self.handle.counters;
        counters.waits.store(counters.waits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let slept = self.poll.sleeping();
        self.waiter.wait(patience, &mut self.events)?;
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
        loop {
            let mut found = false;
            for seat in self.seats.iter_mut().flatten() {
                if seat.leaving.is_none() && seat.worker.has_work() {
                    (seat.ready, found) = (true, true);
                }
            }
            if found || self.waiter.has_completions() || !self.control.is_empty() {
                let counters = &self.handle.counters;
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
            Some(Watched::Wake) => self.obey(),
            None => {}
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

    fn obey(&mut self) {
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
            eprintln!("doorbell: cannot watch the kicks of {}: {error}", worker.setup().name);
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
                seat.worker.finish();
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

/// An I/O thread: a loop on a thread of its own, where `auto` completes by irqfd.
pub struct IoThread {
    handle: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts it.
    ///
    /// # Errors
    /// No thread, no io_uring or no epoll to be had.
    pub fn spawn(config: LoopConfig) -> Result<IoThread, DataplaneError> {
        let name = config.name.clone();
        let (sender, started) = bounded(1);
        let run = move || {
            enter_io_thread();
            if let Some(cpu) = config.cpu {
                super::pin_to_cpu(cpu);
            }
            match EventLoop::new(&config) {
                Ok(event_loop) => {
                    let _ = sender.send(Ok(event_loop.handle()));
                    if let Err(error) = event_loop.run() {
                        eprintln!("doorbell: thread {}: waiting failed: {error}", config.name);
                    }
                }
                Err(error) => _ = sender.send(Err(error)),
            }
        };
        let fail = |source| DataplaneError::Loop { name: name.clone(), source };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(run).map_err(fail)?;
        let handle = started.recv().map_err(|_| DataplaneError::Ended(name.clone()))??;
        Ok(IoThread { handle, thread: Some(thread) })
    }

    /// For other threads.
    pub fn handle(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
