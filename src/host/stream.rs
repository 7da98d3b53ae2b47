use crate::host::Locked;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard};

/// The most bytes of one write: what a pipe takes at once (PIPE_BUF).
const CHUNK: usize = 4096;

/// A queue of bytes in front of a file descriptor whose reader may be slow, stopped, or gone.
///
/// No call waits for the reader, and no lock is held during a write. Bytes are written in the order of the pushes. The
/// blocking mode of the descriptor is not changed, because other processes may share it.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    kind: Kind,
    state: Mutex<State>,
}

/// How a write avoids blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Plain `write`: to a regular file, or to a non-blocking descriptor that only we use.
    Plain,
    /// `send` with MSG_DONTWAIT.
    Socket,
    /// `write` of at most this many bytes, after poll(2) has reported room.
    Polled(usize),
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<u8>,
    /// Whether a thread is in `flush`. It also writes what is pushed meanwhile.
    writing: bool,
    /// Whether writing has failed for good.
    closed: bool,
    /// The first error, until [`Stream::take_error`] returns it.
    error: Option<io::Error>,
    failed: bool,
}

impl Stream {
    /// Returns an empty queue in front of the file that `fd` refers to.
    ///
    /// # Errors
    /// `fd` is closed, or the process has no free file descriptor (EMFILE).
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Stream> {
        let file = File::from(fd.try_clone_to_owned()?);
        let found = file.metadata()?.file_type();
        let (fd, kind) = if found.is_socket() {
            (file.into(), Kind::Socket)
        } else if found.is_fifo() || found.is_char_device() {
            // Open the file again: O_NONBLOCK belongs to the open file description, and `fd` shares its description.
            let own = File::options()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
            match own {
                Ok(own) => (own.into(), Kind::Plain),
                // The terminal belongs to another user, or there is no /proc.
                Err(_) => (file.into(), Kind::Polled(if found.is_fifo() { CHUNK } else { 1 })),
            }
        } else {
            (file.into(), Kind::Plain)
        };
        Ok(Stream { fd, kind, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// Appends `bytes`. Drops them if the reader is gone.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if !state.closed {
            state.queue.extend(bytes);
        }
    }

    /// Returns how many bytes have not been written yet.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Returns whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what can be written without blocking. Returns whether everything has been written.
    pub fn flush(&self) -> bool {
        let mut state = self.lock();
        if state.writing {
            return false;
        }
        state.writing = true;
        while !state.queue.is_empty() {
            let mut chunk = [0; CHUNK];
            let len = io::Read::read(&mut state.queue.as_slices().0, &mut chunk).unwrap_or(0);
            drop(state);
            let written = self.write(&chunk[..len]);
            state = self.lock();
            match written {
                Ok(n) => _ = state.queue.drain(..n.min(len)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    state.closed = matches!(e.raw_os_error(), Some(libc::EPIPE | libc::EBADF));
                    let lost = if state.closed { state.queue.len() } else { len };
                    state.queue.drain(..lost);
                    if !std::mem::replace(&mut state.failed, true) {
                        state.error = Some(e);
                    }
                }
            }
        }
        state.writing = false;
        state.queue.is_empty()
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.kind {
            Kind::Plain => plain_write(&self.fd, bytes),
            Kind::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the buffer has the length that is passed.
                let n = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
                usize::try_from(n).map_err(|_| io::Error::last_os_error())
            }
            Kind::Polled(most) => {
                let mut fd = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                // SAFETY: one valid pollfd.
                if unsafe { libc::poll(&mut fd, 1, 0) } != 1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                plain_write(&self.fd, &bytes[..bytes.len().min(most)])
            }
        }
    }

    /// Returns the first error, once.
    pub fn take_error(&self) -> Option<io::Error> {
        self.lock().error.take()
    }
}

fn plain_write(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer has the length that is passed.
    let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// For waiting until there is room (POLLOUT).
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
