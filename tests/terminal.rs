//! The serial console as a user meets it: every byte of standard input reaches the guest, keys arrive raw, and the
//! terminal is as it was when doorbell has ended, however it ended.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};

use common::{elf, power_off};

/// A guest that prints "R", then echoes what it reads, and turns itself off at "Q".
fn echo() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'R', 0xee, // mov al, 'R'; out dx, al
        0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
        0xec, 0xa8, 0x01, // in al, dx; test al, 1
        0x74, 0xfb, // jz -5
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, 0xee, // in al, dx; out dx, al
        0x3c, b'Q', // cmp al, 'Q'
        0x75, 0xed, // jne again
    ];
    code.extend(power_off());
    code
}

fn no_kvm() -> bool {
    let missing = doorbell::machine::open_kvm().err();
    if let Some(error) = &missing {
        eprintln!("skipped: {error}");
    }
    missing.is_some()
}

fn doorbell(kernel: &tempfile::NamedTempFile) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["run", "--memory", "128M", "--kernel"]).arg(kernel.path());
    command
}

fn kernel() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&elf(&echo())).unwrap();
    file
}

#[test]
fn no_byte_of_a_pipe_is_lost_however_slow_the_guest_is() {
    if no_kvm() {
        return;
    }
    let kernel = kernel();
    let mut child =
        doorbell(&kernel).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input: Vec<u8> = (0..20_000u32).map(|i| b'a' + (i * i % 23) as u8).collect();
    // Without a terminal Ctrl-A x means nothing.
    input.extend(b"\x01x\x03");
    input.push(b'Q');
    let mut to = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || to.write_all(&sent));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(output[0], b'R');
    assert!(output[1..] == input[..], "{} bytes came back of {}", output.len() - 1, input.len());
}

#[test]
fn a_regular_file_is_input_too() {
    if no_kvm() {
        return;
    }
    let kernel = kernel();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[&[b'x'; 5000][..], b"Q"].concat()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let output = doorbell(&kernel).stdin(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.len(), 1 + 5001);
}

/// A guest that prints for ever.
fn chatter() -> Vec<u8> {
    // mov dx, 0x3f8; mov al, 'x'; again: out dx, al; jmp again
    vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd]
}

#[test]
fn output_that_nobody_takes_does_not_keep_it_from_ending() {
    if no_kvm() {
        return;
    }
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    kernel.write_all(&elf(&chatter())).unwrap();
    let mut child = doorbell(&kernel).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    // It runs once there is a byte; from then on nobody reads, and the pipe fills.
    pipe.read_exact(&mut [0]).unwrap();
    let full = || {
        let mut held = 0;
        // SAFETY: FIONREAD writes an int.
        unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut held) };
        // One byte less than the pipe takes: the place of the byte read above is not filled again.
        held >= 65_535
    };
    while !full() {
        std::thread::yield_now();
    }
    // SAFETY: our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGTERM));
}

/// doorbell on a terminal of its own.
struct Session {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: libc::termios,
    _kernel: tempfile::NamedTempFile,
}

fn mode(fd: &OwnedFd) -> libc::termios {
    // SAFETY: a zeroed termios is valid; the call fills it.
    let mut mode = unsafe { zeroed() };
    // SAFETY: `mode` outlives the call.
    assert_eq!(unsafe { libc::tcgetattr(fd.as_raw_fd(), &mut mode) }, 0);
    mode
}

fn same(a: &libc::termios, b: &libc::termios) -> bool {
    (a.c_iflag, a.c_oflag, a.c_cflag, a.c_lflag) == (b.c_iflag, b.c_oflag, b.c_cflag, b.c_lflag)
}

impl Session {
    fn start() -> Session {
        let kernel = kernel();
        let (mut master, mut slave) = (0, 0);
        // SAFETY: both descriptors are written before they are used; names and modes may be null.
        let (master, slave) = unsafe {
            assert_eq!(libc::openpty(&mut master, &mut slave, null_mut(), null(), null()), 0);
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let before = mode(&slave);
        let copy = || Stdio::from(slave.try_clone().unwrap());
        let mut command = doorbell(&kernel);
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
        let mut session = Session { child, master: master.into(), slave, before, _kernel: kernel };
        // The guest's first byte: the console is in raw mode by then.
        session.expect(b"R");
        session
    }

    fn expect(&mut self, bytes: &[u8]) {
        let mut seen = vec![0; bytes.len()];
        self.master.read_exact(&mut seen).unwrap();
        assert_eq!(seen, bytes, "{}", String::from_utf8_lossy(&seen));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    fn ends(mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        assert!(same(&mode(&self.slave), &self.before), "the terminal is not as it was");
    }
}

#[test]
fn keys_arrive_raw_and_ctrl_a_x_ends_the_run() {
    if no_kvm() {
        return;
    }
    let mut session = Session::start();
    assert!(!same(&mode(&session.slave), &session.before), "raw mode");
    session.send(b"a\x03\x1a\r");
    session.expect(b"a\x03\x1a\r");
    session.send(b"\x01\x01b\x01c");
    session.expect(b"\x01b\x01c");
    session.send(b"\x01x");
    session.ends(0);
}

#[test]
fn the_terminal_is_restored_when_the_guest_powers_off() {
    if no_kvm() {
        return;
    }
    let mut session = Session::start();
    session.send(b"Q");
    session.ends(0);
}

#[test]
fn the_terminal_is_restored_when_a_signal_ends_it() {
    if no_kvm() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let session = Session::start();
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(session.child.id() as i32, signal) };
        session.ends(128 + signal);
    }
}
