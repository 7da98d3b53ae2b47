//! The serial port's output: a bounded queue between the guest and a reader that may be slow.
//!
//! No thread waits while it holds the UART's lock, because the main loop needs the lock for input. A guest that prints
//! faster than its reader reads waits on its vCPU thread, and the end of the run ends that wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::exit::ExitLatch;
use crate::dataplane::{EventLoop, Flow};
use crate::host::{Stream, log};

/// How many bytes a guest may be ahead of its reader.
const AHEAD: usize = 4096;

/// Passes the guest's output to a file descriptor.
#[derive(Debug)]
pub struct ConsoleOutput {
    stream: Stream,
    exit: ExitLatch,
    /// An epoll that reports when the stream has room again. Not used for regular files, which always have room.
    room: Arc<OwnedFd>,
}

impl ConsoleOutput {
    /// Returns the output to `fd`.
    ///
    /// # Errors
    /// `fd` is closed, or the process has no free file descriptor (EMFILE).
    pub fn new(fd: BorrowedFd<'_>, exit: ExitLatch) -> io::Result<Arc<ConsoleOutput>> {
        let stream = Stream::new(fd)?;
        // SAFETY: no pointers. The result is checked, and nothing else owns it.
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
        // SAFETY: `event` is valid, and the call copies it. It fails for regular files, which always have room.
        unsafe { libc::epoll_ctl(self.room.as_raw_fd(), operation, fd, &mut event) };
    }

    /// Makes `event_loop` write what is left when the reader has made room.
    ///
    /// # Errors
    /// The process has no free file descriptor (EMFILE).
    pub fn attach(self: &Arc<Self>, event_loop: &mut EventLoop) -> io::Result<()> {
        let this = self.clone();
        let flush = move || {
            this.flush();
            Flow::Continue
        };
        event_loop.add_source(self.room.try_clone()?, Box::new(flush))
    }

    /// Appends `bytes` without waiting. The caller then releases the UART's lock and calls
    /// [`ConsoleOutput::flush_or_wait`].
    pub fn push(&self, bytes: &[u8]) {
        self.stream.push(bytes);
    }

    /// Writes what the reader takes. While the guest is too far ahead, waits for the reader or for the end of the run.
    pub fn flush_or_wait(&self) {
        while !self.flush() && self.stream.len() > AHEAD && self.exit.reason().is_none() {
            // Room, the end of the run, or the signal that stops vCPUs ends this wait.
            self.wait(self.exit.event().as_raw_fd());
        }
    }

    /// Waits until everything is written, or the run must end at once. For the end of a run.
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
