//! `run --on-reset restart`: the guest resets the machine, which starts again with the same console, disks and control
//! socket, as often as the guest likes.

mod common;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use doorbell::machine::layout;
use doorbell::observe::VmView;
use doorbell::observe::control::{Client, Request, Resized};

use common::{elf, out, power_off};

/// Prints "R" and reads a byte: "C" resets by the reset control register, "K" by the keyboard controller, "Q" turns the
/// machine off, and anything else is a triple fault.
fn guest() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xf8, 0x03, 0xb0, b'R', 0xee, // mov dx, 0x3f8; mov al, 'R'; out dx, al
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, 0xa8, 0x01, 0x74, 0xfb, // in al, dx; test al, 1; jz -5
        0x66, 0xba, 0xf8, 0x03, 0xec, // mov dx, 0x3f8; in al, dx
    ];
    let ends = [
        (b'C', out(layout::RESET_PORT, layout::RESET_VALUE)),
        (b'K', out(layout::KEYBOARD_PORT, 0xfe)),
        (b'Q', power_off()),
    ];
    for (key, mut end) in ends {
        end.extend([0xeb, 0xfe]);
        // cmp al, KEY; jne behind the end
        code.extend([0x3c, key, 0x75, end.len() as u8]);
        code.extend(end);
    }
    code.extend([0x0f, 0x0b]);
    code
}

struct Run {
    child: Child,
    directory: tempfile::TempDir,
}

impl Run {
    fn start(disk: &str) -> Option<Run> {
        if let Err(error) = doorbell::machine::open_kvm() {
            eprintln!("skipped: {error}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("kernel"), elf(&guest())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        command.args(["run", "--memory", "128M", "--on-reset", "restart", "--disk", disk]);
        command.arg("--kernel").arg(at("kernel")).arg("--control").arg(at("control"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(Run { child: command.spawn().unwrap(), directory })
    }

    /// Waits until the guest has started.
    fn started(&mut self) {
        let mut byte = [0];
        self.child.stdout.as_mut().unwrap().read_exact(&mut byte).expect("the guest starts");
        assert_eq!(&byte, b"R");
    }

    fn key(&mut self, key: u8) {
        self.child.stdin.as_mut().unwrap().write_all(&[key]).unwrap();
    }

    fn client(&self) -> Client {
        Client::connect(&self.directory.path().join("control")).unwrap()
    }

    /// Waits for its end; returns the exit code and the messages.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_guest_that_resets_starts_again_with_the_same_disks_and_control_socket() {
    let Some(mut run) = Run::start("backend=null,size=1M") else { return };
    run.started();
    let mut client = run.client();
    let resize = |size| Request::Resize { disk: "disk0".into(), size: Some(size) };
    client.ask::<Resized>(resize(2 << 20)).unwrap();
    assert!(client.ask::<bool>(Request::TraceStart { capacity: 16 }).unwrap(), "a trace does not hold it up");
    for key in *b"CKTC" {
        run.key(key);
        run.started();
        let view: VmView = client.ask(Request::Inspect { section: "all".into() }).unwrap();
        assert_eq!(view.queues.unwrap().len(), 1);
        let same: Resized = client.ask(resize(2 << 20)).unwrap();
        assert_eq!(same.before, 2 << 20, "the disk is the one that was resized");
    }
    run.client().ask::<VmView>(Request::Inspect { section: "threads".into() }).expect("a new client, too");
    run.key(b'Q');
    let (code, messages) = run.end();
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!(messages.matches("starting it again").count(), 4, "{messages}");
}

#[test]
fn a_signal_ends_a_guest_that_resets_without_end() {
    let Some(mut run) = Run::start("backend=mem,size=1M") else { return };
    for key in *b"CCCCCCCC" {
        run.started();
        run.key(key);
    }
    // The last reset is under way or over: the signal counts in either case.
    // SAFETY: no pointers; the process is ours and not waited for.
    unsafe { libc::kill(run.child.id() as i32, libc::SIGTERM) };
    let (code, messages) = run.end();
    assert_eq!(code, Some(143), "{messages}");
}

#[test]
fn the_consoles_file_is_continued() {
    if let Err(error) = doorbell::machine::open_kvm() {
        return eprintln!("skipped: {error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (kernel, console) = (directory.path().join("kernel"), directory.path().join("console"));
    // in al, dx from the serial port finds no input: the guest is one that resets, and then one that powers off.
    let resets = elf(&[&guest()[..7], &out(layout::RESET_PORT, layout::RESET_VALUE), &[0xeb, 0xfe]].concat());
    let powers_off = elf(&[&guest()[..7], &power_off()[..]].concat());
    std::fs::write(&console, "of an earlier run").unwrap();
    std::fs::write(&kernel, resets).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["run", "--memory", "128M", "--on-reset", "restart", "--kernel"]).arg(&kernel);
    command.arg("--console").arg(format!("file={}", console.display())).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut first).expect("the message about a reset");
    // The kernel's file is read anew at each reset.
    let new = directory.path().join("new");
    std::fs::write(&new, powers_off).unwrap();
    std::fs::rename(&new, &kernel).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let written = std::fs::read_to_string(&console).unwrap();
    assert!(written.len() >= 2 && written.bytes().all(|byte| byte == b'R'), "{written:?}");
}
