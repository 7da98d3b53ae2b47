//! Whoever runs queues for a device: a loop of ours ([`LoopHandle`]), another process, or a fake in tests.

use super::{Attachment, DataplaneError, LoopHandle, QueueSetup};
use crate::backend::Backend;

/// Something that runs queues: an I/O thread, the main loop, or a vhost-user backend.
pub trait QueueLoop: Send + Sync {
    /// Runs a queue until its [`RunningQueue::detach`]. Checks the ring once at the start, so that no earlier kick
    /// is lost. May wait for the loop's thread: so the caller holds no lock that this thread, or a callback in
    /// `setup`, takes.
    ///
    /// # Errors
    /// The rings are not in guest memory, or the loop has ended.
    fn attach(&self, setup: QueueSetup) -> Result<Box<dyn RunningQueue>, DataplaneError>;

    /// The thread's name.
    fn name(&self) -> &str;
}

/// A running queue.
pub trait RunningQueue: Send {
    /// Stops the queue. When this returns, all requests in flight have completed and nothing touches guest memory.
    /// Returns the backend for the next run, if one is left. Waits, under the same condition as [`QueueLoop::attach`].
    fn detach(self: Box<Self>) -> Option<Box<dyn Backend>>;

    /// The driver changed the queue's vector, or how interrupts are sent was switched. For those that hand the vector's eventfd
    /// on; whoever asks [`crate::dataplane::Interrupt`] each time needs nothing. Must not wait.
    fn interrupt_changed(&self) {}
}

impl QueueLoop for LoopHandle {
    fn attach(&self, setup: QueueSetup) -> Result<Box<dyn RunningQueue>, DataplaneError> {
        Ok(Box::new(LoopHandle::attach(self, setup)?))
    }

    fn name(&self) -> &str {
        LoopHandle::name(self)
    }
}

impl RunningQueue for Attachment {
    fn detach(self: Box<Self>) -> Option<Box<dyn Backend>> {
        Attachment::detach(*self)
    }
}
