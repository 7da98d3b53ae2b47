//! Signals that come before there is anything to end: while a guest's disks are made, or while a VM does not answer.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use doorbell::bench::PROBE_ELF;

const SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Starts doorbell and waits until it waits for us, who never answer.
fn waits_for(listener: &UnixListener, command: &mut Command) -> (Child, UnixStream) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    (child, listener.accept().unwrap().0)
}

/// Sends it `signal` and waits for its end.
fn ends_by(signal: i32, (child, connection): (Child, UnixStream)) {
    // SAFETY: no pointers; the process is ours and not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    let output = child.wait_with_output().unwrap();
    // Held until here: a connection that is closed would end it, too.
    drop(connection);
    assert_eq!(output.status.code(), Some(128 + signal), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_run_can_be_ended_while_a_disk_is_made() {
    if let Err(error) = doorbell::machine::open_kvm() {
        return println!("skipped: {error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (socket, kernel) = (directory.path().join("socket"), directory.path().join("kernel"));
    std::fs::write(&kernel, PROBE_ELF).unwrap();
    // A backend that takes the connection and then is silent: doorbell waits for seconds, in the middle of making the VM.
    let listener = UnixListener::bind(&socket).unwrap();
    for signal in SIGNALS {
        let mut run = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        run.args(["run", "--memory", "128M", "--kernel"]).arg(&kernel);
        run.arg("--disk").arg(format!("vhost-user={}", socket.display()));
        ends_by(signal, waits_for(&listener, &mut run));
    }
}

#[test]
fn a_trace_can_be_ended_before_the_vm_answers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    for signal in SIGNALS {
        let mut trace = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        trace.arg("trace").arg(&socket).arg("--out").arg(directory.path().join("trace"));
        ends_by(signal, waits_for(&listener, &mut trace));
        let left: Vec<_> =
            std::fs::read_dir(&directory).unwrap().flatten().map(|file| file.file_name()).collect();
        assert_eq!(left, ["socket"], "no half-written file is left");
    }
}
