//! Passes standard input to the serial port.
//!
//! From a pipe or a file no byte is lost: what the guest does not take waits, first here and then in the pipe. From a
//! terminal every key is read, because one of them may end the run. Keys that the guest does not take are dropped when
//! the buffer is full, and counted. A terminal is not touched while another job owns it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use super::exit::{ExitLatch, ExitReason};
use super::serial::SerialPort;
use super::terminal::{self, Ownership};
use crate::dataplane::{EventLoop, Flow};
use crate::host::log;

/// The most bytes that wait here. Beyond it, a pipe is not read, and keys are dropped.
const BACKLOG: usize = 4096;
/// The most reads in a row, so that the main loop can serve its other sources.
const READS: usize = 16;
/// How often to check whether a terminal that another job owns is ours again. There may be no signal for it: bash sends
/// SIGCONT only to a job that was stopped.
const LOOK: Duration = Duration::from_millis(500);
/// Ctrl-A, the escape key. Only a terminal has it.
const ESCAPE: u8 = 0x01;

/// Reads `input` and passes it to `port`.
pub struct ConsoleInput {
    /// Watches the input, while there is room, and the port's room event. The main loop watches this epoll.
    epoll: Arc<OwnedFd>,
    input: RawFd,
    port: Arc<SerialPort>,
    exit: ExitLatch,
    backlog: VecDeque<u8>,
    state: State,
    /// If the input is a terminal: the timer for checks while another job owns it.
    terminal: Option<TimerFd>,
    /// Whether the terminal is ours and raw: Ctrl-A x ends the run, Ctrl-A Ctrl-A is Ctrl-A.
    escapes: bool,
    escaped: bool,
    /// How many keys were dropped because the guest had no room.
    dropped: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The epoll watches the input.
    Watched,
    /// The epoll does not watch it until there is room, or the terminal is ours again.
    Paused,
    /// A regular file, which cannot be watched and is always ready.
    File,
    /// The end was reached.
    Ended,
}

impl ConsoleInput {
    /// Makes `event_loop` pass `input` to `port`. `input` stays open as long as the loop runs.
    ///
    /// # Errors
    /// The host cannot create the epoll or the timer.
    pub fn attach(
        event_loop: &mut EventLoop,
        input: RawFd,
        port: Arc<SerialPort>,
        exit: ExitLatch,
        is_terminal: bool,
    ) -> io::Result<()> {
        // SAFETY: no pointers. The result is checked, and nothing else owns it.
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
            terminal: if is_terminal { Some(TimerFd::new()?) } else { None },
            escapes: false,
            escaped: false,
            dropped: 0,
        };
        this.control(libc::EPOLL_CTL_ADD, room)?;
        if let Some(timer) = &this.terminal {
            this.control(libc::EPOLL_CTL_ADD, timer.as_raw_fd())?;
        }
        if this.is_ours() {
            this.resume();
        }
        // Start reading a regular file, for which epoll reports no event.
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
        // SAFETY: `event` is valid, and the call copies it.
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
        if !self.is_ours() {
            self.leave(State::Paused);
            return self.feed();
        }
        for _ in 0..READS {
            if !self.takes_more() || !self.ready() {
                break;
            }
            self.read();
        }
        self.feed();
        match self.state {
            State::Watched if !self.takes_more() => self.leave(State::Paused),
            State::Paused if self.takes_more() => self.resume(),
            _ => {}
        }
    }

    /// Returns whether the input may be read: it is not a terminal, or no other job owns it. Sets raw mode, or the
    /// timer for the next check.
    fn is_ours(&mut self) -> bool {
        let Some(timer) = &mut self.terminal else { return true };
        // This also clears the expiration that caused this call.
        let _ = timer.clear();
        let owner = terminal::ownership();
        self.escapes = owner == Ownership::Ours;
        if self.escapes
            && let Err(error) = terminal::make_raw()
        {
            log::warn("console", format_args!("the terminal cannot be set to raw mode: {error}"));
        }
        if owner == Ownership::Others && timer.reset(LOOK, None).is_err() {
            log::warn("console", format_args!("cannot make a timer; keys may not be read"));
        }
        owner != Ownership::Others
    }

    /// Whether to read more: there is room, or a key may come that ends the run.
    fn takes_more(&self) -> bool {
        self.backlog.len() < BACKLOG || self.escapes
    }

    /// Whether a read would return at once. Other processes may share standard input, so it stays in blocking mode.
    fn ready(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.input, events: libc::POLLIN, revents: 0 };
        matches!(self.state, State::Watched | State::File)
            // SAFETY: one valid pollfd.
            && unsafe { libc::poll(&mut fd, 1, 0) } == 1
    }

    fn read(&mut self) {
        let mut bytes = [0; 1024];
        // SAFETY: the buffer has the length that is passed.
        match unsafe { libc::read(self.input, bytes.as_mut_ptr().cast(), bytes.len()) } {
            n @ 1.. => {
                for &byte in &bytes[..n as usize] {
                    self.take(byte);
                }
            }
            0 => self.leave(State::Ended),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // Another job has taken the terminal since the check.
            _ if self.terminal.is_some() && terminal::ownership() == Ownership::Others => {}
            _ => self.leave(State::Ended),
        }
    }

    fn take(&mut self, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            match byte {
                b'x' | b'X' => return self.exit.request(ExitReason::Quit),
                ESCAPE => {}
                _ => self.keep(ESCAPE),
            }
        } else if self.escapes && byte == ESCAPE {
            self.escaped = true;
            return;
        }
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        if self.backlog.len() < BACKLOG || self.terminal.is_none() {
            return self.backlog.push_back(byte);
        }
        if self.dropped == 0 {
            log::warn(
                "console",
                format_args!("the guest does not read; keys are dropped (Ctrl-A x ends the run)"),
            );
        }
        self.dropped += 1;
    }

    fn feed(&mut self) {
        while !self.backlog.is_empty() {
            let taken = self.port.receive(self.backlog.make_contiguous());
            if taken == 0 {
                break;
            }
            self.backlog.drain(..taken);
        }
        if self.dropped > 0 && self.backlog.is_empty() {
            log::warn("console", format_args!("{} keys were dropped", std::mem::take(&mut self.dropped)));
        }
    }
}
