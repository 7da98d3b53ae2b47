//! The seam to the dataplane: who runs a queue. One implementation, [`LoopHandle`], and a fake in tests.

use crate::backend::Backend;
use crate::dataplane::{Attachment, DataplaneError, LoopHandle, QueueSetup};

/// Something that runs queues: an I/O thread, or the main loop.
pub trait QueueLoop: Send + Sync {
    /// Runs a queue until its [`RunningQueue::detach`]. Looks at the ring once by itself, so that no kick from before
    /// is lost. May wait for the loop's thread; the caller holds no lock that this thread, or one of `setup`'s
    /// callbacks, could want.
    ///
    /// # Errors
    /// The rings are not in guest memory, or the loop has ended.
    fn attach(&self, setup: QueueSetup) -> Result<Box<dyn RunningQueue>, DataplaneError>;

    /// The thread's name.
    fn name(&self) -> &str;
}

/// A queue that runs.
pub trait RunningQueue: Send {
    /// Stops it. When this returns, all requests in flight have completed and nothing touches guest memory. Answers
    /// the backend for the next run, if there is one left. Waits; same condition as [`QueueLoop::attach`].
    fn detach(self: Box<Self>) -> Option<Box<dyn Backend>>;
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
