//! The serial port's output: a bounded queue between the guest and a reader that may be slow.
//!
//! The UART's lock is never held while anybody waits: the main loop needs it for input. A guest that prints faster
//! than its reader reads waits on its own vCPU thread, and the end of the run ends that wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::exit::ExitLatch;
use crate::dataplane::{EventLoop, Flow};
use crate::host::{Stream, log};

/// Bytes that a guest may be ahead of its reader.
const AHEAD: usize = 4096;

/// Where the guest's bytes go.
#[derive(Debug)]
pub struct ConsoleOutput {
    stream: Stream,
    exit: ExitLatch,
    /// Holds the stream, for the moment when it has room again. Useless, and unused, for regular files.
    room: Arc<OwnedFd>,
}

impl ConsoleOutput {
    /// Output to `fd`.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn new(fd: BorrowedFd<'_>, exit: ExitLatch) -> io::Result<Arc<ConsoleOutput>> {
        let stream = Stream::new(fd)?;
        // SAFETY: no pointers; the result is checked and owned by nobody else.
        let room = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let this = ConsoleOutput { stream, exit, room: Arc::new(room) };
        this.watch(libc::EPOLL_CTL_ADD, 0);
        Ok(Arc::new(this))
    }

    fn watch(&self, operation: i32, events: i32) {
        let mut event = libc::epoll_event { events: (events | libc::EPOLLONESHOT) as u32, u64: 0 };
        let fd = self.stream.as_fd().as_raw_fd();
        // SAFETY: a valid event, which the call copies. It fails for regular files, which always have room.
        unsafe { libc::epoll_ctl(self.room.as_raw_fd(), operation, fd, &mut event) };
    }

    /// Lets `event_loop` write what is left once the reader has made room.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn attach(self: &Arc<Self>, event_loop: &mut EventLoop) -> io::Result<()> {
        let this = self.clone();
        let flush = move || {
            this.flush();
            Flow::Continue
        };
        event_loop.add_source(self.room.try_clone()?, Box::new(flush))
    }

    /// Takes a byte; never waits. [`ConsoleOutput::flush_or_wait`] follows, without the UART's lock.
    pub fn push(&self, bytes: &[u8]) {
        self.stream.push(bytes);
    }

    /// Writes what the reader takes; if the guest is too far ahead, waits until it is not, or the run is over.
    pub fn flush_or_wait(&self) {
        while !self.flush() && self.stream.len() > AHEAD && self.exit.reason().is_none() {
            // Ends by room, by the end of the run, or by the signal that stops vCPUs.
            self.wait(self.exit.event().as_raw_fd());
        }
    }

    /// Waits until all is written, or someone wants the run to end at once. For the end of a run.
    pub fn finish(&self) {
        while !self.flush() && !self.exit.is_urgent() {
            self.wait(self.exit.urgent_event().as_raw_fd());
        }
    }

    fn wait(&self, end: i32) {
        let poll = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut polled = [poll(self.stream.as_fd().as_raw_fd(), libc::POLLOUT), poll(end, libc::POLLIN)];
        // SAFETY: two valid pollfds.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
    }

    fn flush(&self) -> bool {
        let done = self.stream.flush();
        if let Some(error) = self.stream.take_error() {
            log::warn("console", format_args!("output is lost: {error}"));
        }
        if !done {
            self.watch(libc::EPOLL_CTL_MOD, libc::EPOLLOUT);
        }
        done
    }
}
