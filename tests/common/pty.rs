//! A process on a terminal of its own.
#![allow(dead_code)] // Not every test uses all of it.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};

pub struct Session {
    pub child: Child,
    pub master: File,
    pub slave: OwnedFd,
    pub before: libc::termios,
}

pub fn mode(fd: &OwnedFd) -> libc::termios {
    // SAFETY: a zeroed termios is valid; the call fills it.
    let mut mode = unsafe { zeroed() };
    // SAFETY: `mode` outlives the call.
    assert_eq!(unsafe { libc::tcgetattr(fd.as_raw_fd(), &mut mode) }, 0);
    mode
}

pub fn same(a: &libc::termios, b: &libc::termios) -> bool {
    (a.c_iflag, a.c_oflag, a.c_cflag, a.c_lflag) == (b.c_iflag, b.c_oflag, b.c_cflag, b.c_lflag)
}

impl Session {
    /// Starts `command` as the leader of a session on a new terminal.
    pub fn start(mut command: Command) -> Session {
        let (mut master, mut slave) = (0, 0);
        // SAFETY: both descriptors are written before they are used; names and modes may be null.
        let (master, slave) = unsafe {
            assert_eq!(libc::openpty(&mut master, &mut slave, null_mut(), null(), null()), 0);
            libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(slave, libc::F_SETFD, libc::FD_CLOEXEC);
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let before = mode(&slave);
        let copy = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(copy()).stdout(copy()).stderr(copy());
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Session { child, master: master.into(), slave, before }
    }

    pub fn expect(&mut self, bytes: &[u8]) {
        let seen: Vec<u8> = bytes.iter().map(|_| self.byte(bytes)).collect();
        assert_eq!(seen, bytes, "{}", String::from_utf8_lossy(&seen));
    }

    /// The next byte. The deadline is for machines that are busy with something else.
    fn byte(&mut self, wanted: &[u8]) -> u8 {
        let mut fd = libc::pollfd { fd: self.master.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&mut fd, 1, 60_000) };
        assert_eq!(ready, 1, "{:?} does not come", String::from_utf8_lossy(wanted));
        let mut byte = [0];
        self.master.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Reads up to and with `bytes`, whatever comes before.
    pub fn skip_to(&mut self, bytes: &[u8]) {
        let mut seen = Vec::new();
        while !seen.ends_with(bytes) {
            seen.push(self.byte(bytes));
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    pub fn is_restored(&self) -> bool {
        same(&mode(&self.slave), &self.before)
    }

    pub fn ends(mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        assert!(self.is_restored(), "the terminal is not as it was");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
