//! The serial console as a user meets it: every byte of standard input reaches the guest, keys arrive raw, and the
//! terminal is as it was when doorbell has ended, however it ended.

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{echo, elf, power_off};
use pty::Session;

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
    // The byte of input needs the serial port too.
    let mut child = doorbell(&kernel).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
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

/// The echo guest on a terminal of its own, in raw mode.
fn session(kernel: &tempfile::NamedTempFile) -> Session {
    let mut session = Session::start(doorbell(kernel));
    // The guest's first byte: the console is in raw mode by then.
    session.expect(b"R");
    session
}

#[test]
fn keys_arrive_raw_and_ctrl_a_x_ends_the_run() {
    if no_kvm() {
        return;
    }
    let kernel = kernel();
    let mut session = session(&kernel);
    assert!(!session.is_restored(), "raw mode");
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
    let kernel = kernel();
    let mut session = session(&kernel);
    session.send(b"Q");
    session.ends(0);
}

#[test]
fn the_terminal_is_restored_when_a_signal_ends_it() {
    if no_kvm() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let kernel = kernel();
        let session = session(&kernel);
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(session.child.id() as i32, signal) };
        session.ends(128 + signal);
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    if no_kvm() {
        return;
    }
    let kernel = kernel();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let mut command = doorbell(&kernel);
        // SAFETY: signal() is async-signal-safe.
        unsafe { command.pre_exec(move || Ok(_ = libc::signal(signal, libc::SIG_IGN))) };
        let mut session = Session::start(command);
        session.expect(b"R");
        for signal in [signal, libc::SIGTERM] {
            // SAFETY: our own child, which has not been waited for.
            unsafe { libc::kill(session.child.id() as i32, signal) };
        }
        session.ends(128 + libc::SIGTERM);
    }
}

#[test]
fn there_is_a_way_out_of_a_terminal_whose_guest_does_not_read() {
    if no_kvm() {
        return;
    }
    let mut deaf = tempfile::NamedTempFile::new().unwrap();
    // mov dx, 0x3f8; mov al, 'R'; out dx, al; hlt; jmp to the hlt
    deaf.write_all(&elf(&[0x66, 0xba, 0xf8, 0x03, 0xb0, b'R', 0xee, 0xf4, 0xeb, 0xfd])).unwrap();
    let mut session = Session::start(doorbell(&deaf));
    session.expect(b"R");
    // More than the terminal, the serial port and doorbell hold together.
    session.send(&[b'a'; 20_000]);
    session.send(b"\x01x");
    session.ends(0);
}

/// A guest that prints `n` bytes and turns itself off.
fn burst(n: u32) -> tempfile::NamedTempFile {
    // mov ecx, n; mov dx, 0x3f8; mov al, 'x'; again: out dx, al; dec ecx; jnz again
    let [a, b, c, d] = n.to_le_bytes();
    let mut code = vec![0xb9, a, b, c, d, 0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0x49, 0x75, 0xfc];
    code.extend(power_off());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&elf(&code)).unwrap();
    file
}

#[test]
fn no_byte_of_output_is_lost_in_a_pipe_that_is_non_blocking() {
    if no_kvm() {
        return;
    }
    let kernel = burst(200_000);
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    let mut child = doorbell(&kernel).stdin(Stdio::null()).stdout(writer).spawn().unwrap();
    // It ends only when all has been taken.
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!((child.wait().unwrap().code(), seen.len()), (Some(0), 200_000));
}

#[test]
fn output_that_cannot_be_written_is_told_once_and_the_guest_goes_on() {
    if no_kvm() {
        return;
    }
    let kernel = burst(20_000);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = doorbell(&kernel).stdin(Stdio::null()).stdout(full).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("console: output is lost: No space left") && text.lines().count() == 1, "{text}");

    // A limit on file sizes comes with a signal that kills whoever does not ignore it.
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = doorbell(&kernel);
    command.arg("--console").arg(format!("file={}", file.path().display())).stdin(Stdio::null());
    // SAFETY: setrlimit is async-signal-safe and reads `limit`.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
            Ok(_ = libc::setrlimit(libc::RLIMIT_FSIZE, &limit))
        });
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(file.as_file().metadata().unwrap().len(), 4096);
}
