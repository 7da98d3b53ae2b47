//! Standard input to the serial port, with back-pressure: what the guest does not take waits, first here and then in
//! the pipe or terminal; no byte is lost.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::exit::{ExitLatch, ExitReason};
use super::serial::SerialPort;
use crate::dataplane::{EventLoop, Flow};

/// Bytes that wait here before standard input is left alone.
const BACKLOG: usize = 4096;
/// Ctrl-A, the escape of the terminal; only there.
const ESCAPE: u8 = 0x01;

/// Reads `input` for `port`.
pub struct ConsoleInput {
    /// Holds the input, while there is room for it, and the port's room event. The main loop watches the epoll.
    epoll: Arc<OwnedFd>,
    input: RawFd,
    port: Arc<SerialPort>,
    exit: ExitLatch,
    backlog: VecDeque<u8>,
    state: State,
    /// The input is a terminal: Ctrl-A x ends the run, Ctrl-A Ctrl-A is Ctrl-A.
    escapes: bool,
    escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the epoll.
    Watched,
    /// Out of it until there is room.
    Paused,
    /// A regular file: cannot be watched and is always ready.
    File,
    /// Its end was reached.
    Ended,
}

impl ConsoleInput {
    /// Makes `event_loop` feed `port` from `input`, which stays open for as long as the loop runs.
    ///
    /// # Errors
    /// No epoll to be had.
    pub fn attach(
        event_loop: &mut EventLoop,
        input: RawFd,
        port: Arc<SerialPort>,
        exit: ExitLatch,
        escapes: bool,
    ) -> io::Result<()> {
        // SAFETY: no pointers; the result is checked and owned by nobody else.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let watched = epoll.try_clone()?;
        let room = port.room().as_raw_fd();
        let mut this = ConsoleInput {
            epoll: Arc::new(epoll),
            input,
            port,
            exit,
            backlog: VecDeque::new(),
            state: State::Paused,
            escapes,
            escaped: false,
        };
        this.control(libc::EPOLL_CTL_ADD, room)?;
        this.resume();
        // One look at a regular file, which will never wake anybody.
        let _ = this.port.room().write(1);
        event_loop.add_source(
            watched,
            Box::new(move || {
                this.turn();
                Flow::Continue
            }),
        )
    }

    fn control(&self, operation: i32, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: a valid event, which the call copies.
        let ret = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn resume(&mut self) {
        if self.state == State::Paused {
            self.state = match self.control(libc::EPOLL_CTL_ADD, self.input) {
                Ok(()) => State::Watched,
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => State::File,
                Err(_) => State::Ended,
            };
        }
    }

    fn leave(&mut self, state: State) {
        if self.state == State::Watched {
            let _ = self.control(libc::EPOLL_CTL_DEL, self.input);
        }
        self.state = state;
    }

    fn turn(&mut self) {
        let _ = self.port.room().read();
        while self.backlog.len() < BACKLOG && self.ready() {
            self.read();
        }
        self.feed();
        match self.state {
            State::Watched if self.backlog.len() >= BACKLOG => self.leave(State::Paused),
            State::Paused if self.backlog.len() < BACKLOG => self.resume(),
            _ => {}
        }
    }

    /// Whether a read would not wait. Standard input may be shared with other processes, so its blocking mode is not
    /// ours to change.
    fn ready(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.input, events: libc::POLLIN, revents: 0 };
        matches!(self.state, State::Watched | State::File)
            // SAFETY: one valid pollfd.
            && unsafe { libc::poll(&mut fd, 1, 0) } == 1
    }

    fn read(&mut self) {
        let mut bytes = [0; 1024];
        // SAFETY: the buffer is as long as said.
        match unsafe { libc::read(self.input, bytes.as_mut_ptr().cast(), bytes.len()) } {
            n @ 1.. => {
                for &byte in &bytes[..n as usize] {
                    self.take(byte);
                }
            }
            0 => self.leave(State::Ended),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => self.leave(State::Ended),
        }
    }

    fn take(&mut self, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            match byte {
                b'x' | b'X' => return self.exit.request(ExitReason::Quit),
                ESCAPE => {}
                _ => self.backlog.push_back(ESCAPE),
            }
        } else if self.escapes && byte == ESCAPE {
            self.escaped = true;
            return;
        }
        self.backlog.push_back(byte);
    }

    fn feed(&mut self) {
        while !self.backlog.is_empty() {
            let taken = self.port.receive(self.backlog.make_contiguous());
            if taken == 0 {
                break;
            }
            self.backlog.drain(..taken);
        }
    }
}
