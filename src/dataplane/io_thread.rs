use std::thread::JoinHandle;

use crossbeam_channel::bounded;

use super::event_loop::EventLoop;
use super::handle::{DataplaneError, LoopConfig, LoopHandle};
use super::interrupt::enter_io_thread;

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
                crate::host::pin_to_cpu(cpu);
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
