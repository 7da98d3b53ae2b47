use std::thread::JoinHandle;

use crossbeam_channel::bounded;

use super::event_loop::EventLoop;
use super::handle::{DataplaneError, LoopConfig, LoopHandle};
use super::interrupt::enter_io_thread;
use crate::host::thread::{self, OnDeath};

/// An I/O thread: a loop on a separate thread. There `auto` completes by irqfd.
pub struct IoThread {
    handle: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts the thread. It calls `on_death` if it ends by an error or a panic, after which its disks would hang.
    ///
    /// # Errors
    /// The host cannot start the thread, or cannot create its io_uring or epoll.
    pub fn spawn(config: LoopConfig, on_death: OnDeath) -> Result<IoThread, DataplaneError> {
        let name = config.name.clone();
        let (sender, started) = bounded(1);
        let run = move || {
            enter_io_thread();
            if let Some(cpu) = config.cpu {
                crate::host::pin_to_cpu(cpu);
            }
            match EventLoop::new(&config) {
                Ok(event_loop) => {
                    event_loop.handle().counters().on_this_thread();
                    let _ = sender.send(Ok(event_loop.handle()));
                    event_loop.run().map_err(|error| format!("waiting failed: {error}"))
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                    Ok(())
                }
            }
        };
        let fail = |source| DataplaneError::Loop { name: name.clone(), source };
        let thread = thread::spawn(&name, on_death, run).map_err(fail)?;
        let handle = started.recv().map_err(|_| DataplaneError::Ended(name.clone()))??;
        Ok(IoThread { handle, thread: Some(thread) })
    }

    /// Returns the handle of the loop.
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
