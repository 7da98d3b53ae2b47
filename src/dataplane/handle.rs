//! The interface of a loop for other threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::ring::RingError;
use super::setup::QueueSetup;
use super::worker::Worker;
use crate::backend::Backend;

/// Why an operation of the dataplane failed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A loop could not be created.
    #[error("cannot make the event loop of {name}: {source}")]
    Loop {
        /// Thread name.
        name: String,
        /// errno.
        source: io::Error,
    },
    /// The driver's rings cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The process that should run the queue does not.
    #[error("{0}")]
    Remote(String),
    /// The loop has ended.
    #[error("thread {0} has ended")]
    Ended(String),
}

/// The configuration of a loop.
#[derive(Clone, Debug, Default)]
pub struct LoopConfig {
    /// Thread name, at most 15 bytes (`ps -L` shows it).
    pub name: String,
    /// Whether the loop sleeps in an io_uring, which io_uring backends need, or in an epoll.
    pub uring: bool,
    /// The longest busy-poll before a sleep, in nanoseconds; 0 switches it off.
    pub poll_max_ns: u64,
    /// The host CPU to pin the thread to.
    pub cpu: Option<usize>,
}

/// Counters of a loop, without those of its queues.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCounters {
    /// Waits, each one system call: `epoll_wait` or `io_uring_enter`.
    pub waits: AtomicU64,
    /// Waits that a busy-poll avoided, because something came.
    pub poll_hits: AtomicU64,
    /// The clock of the thread that runs the loop; 0: none has run it.
    cpu_clock: AtomicI32,
}

impl LoopCounters {
    /// CPU time of the loop's thread so far, user and system, in nanoseconds; `None`: it has not begun, or has ended.
    pub fn cpu_ns(&self) -> Option<u64> {
        let clock = self.cpu_clock.load(Ordering::Relaxed);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes to `time` only; the clock of a thread that has ended is an error. 0 is the time of day's.
        let read = clock != 0 && unsafe { libc::clock_gettime(clock, &mut time) } == 0;
        read.then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The calling thread runs the loop from here on.
    pub(super) fn on_this_thread(&self) {
        let mut clock = 0;
        // SAFETY: the calling thread exists; the call writes the clock's number (pthread_getcpuclockid(3)).
        if unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) } == 0 {
            self.cpu_clock.store(clock, Ordering::Relaxed);
        }
    }
}

pub(super) enum Control {
    Attach(Box<QueueSetup>, Sender<Result<u32, RingError>>),
    Detach(u32, Sender<Box<Worker>>),
    Stop,
}

/// A loop as other threads reach it.
#[derive(Clone)]
pub struct LoopHandle {
    name: Arc<str>,
    control: Sender<Control>,
    wake: Arc<EventFd>,
    counters: Arc<LoopCounters>,
}

impl LoopHandle {
    /// Returns a handle, and what its loop listens to: the messages, and the eventfd that announces them.
    pub(super) fn new(name: &str) -> io::Result<(LoopHandle, Receiver<Control>, Arc<EventFd>)> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let (sender, control) = unbounded();
        let handle =
            LoopHandle { name: name.into(), control: sender, wake: wake.clone(), counters: Arc::default() };
        Ok((handle, control, wake))
    }

    /// Gives a queue to the loop, which looks at the ring at once. So a kick that came before is not lost.
    ///
    /// Do not call it on the thread of the loop: it waits for that thread.
    ///
    /// # Errors
    /// The rings cannot be used ([`DataplaneError::Ring`]), or the loop has ended.
    pub fn attach(&self, setup: QueueSetup) -> Result<Attachment, DataplaneError> {
        let (reply, answer) = bounded(1);
        self.send(Control::Attach(Box::new(setup), reply))?;
        let id = answer.recv().map_err(|_| self.ended())??;
        Ok(Attachment { id, handle: self.clone() })
    }

    /// Ends the loop after its queues have drained. Does nothing if it has ended.
    pub fn stop(&self) {
        let _ = self.send(Control::Stop);
    }

    /// Returns the name of the thread.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the counters.
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

/// A queue that is attached to a loop.
pub struct Attachment {
    id: u32,
    handle: LoopHandle,
}

impl Attachment {
    /// Takes the queue back. The loop starts no further request, and those in flight complete. The calling thread
    /// publishes them and interrupts the guest. After it returns, no thread accesses the rings. Returns the backend, or
    /// `None` if the loop has ended (it drained its queues then).
    ///
    /// Do not call it on the thread of the loop: it waits for that thread.
    pub fn detach(self) -> Option<Box<dyn Backend>> {
        let (reply, answer) = bounded(1);
        self.handle.send(Control::Detach(self.id, reply)).ok()?;
        let mut worker = answer.recv().ok()?;
        worker.finish(&mut |_| false);
        worker.release_held();
        Some(worker.into_backend())
    }
}
