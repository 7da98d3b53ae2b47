//! `run` under its sandbox: all threads are confined before the guest runs, and all that a run offers still works.

mod common;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SERIAL: u16 = 0x3f8;

fn skipped() -> bool {
    let error = doorbell::machine::open_kvm().err();
    if let Some(error) = &error {
        eprintln!("skipped: {error}");
    }
    error.is_some()
}

/// A guest that says `x` and then does nothing for ever. Returns when it has said it.
fn start(directory: &Path, arguments: &[&str]) -> Child {
    let kernel = directory.join("kernel");
    fs::write(&kernel, common::elf(&[common::out(SERIAL, b'x'), vec![0xeb, 0xfe]].concat())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["run", "--memory", "128M", "--kernel"]).arg(kernel).args(arguments);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    child
}

fn end(mut child: Child) -> (Option<i32>, String) {
    // SAFETY: a child of ours that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// Name and `/proc/PID/task/TID/status` of each thread.
fn threads(child: &Child) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let task = |task: fs::DirEntry| {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap();
        (read("comm").trim().to_string(), read("status"))
    };
    // Those of io_uring itself are the kernel's.
    tasks.map(|entry| task(entry.unwrap())).filter(|(name, _)| !name.starts_with("iou-")).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

const DISKS: [&str; 8] = [
    "--cpus",
    "2",
    "--iothreads",
    "2",
    "--disk",
    "backend=mem,size=1M",
    "--disk",
    "backend=null,size=1M,iothread=none,complete=resample",
];

#[test]
fn every_thread_is_confined_before_the_guest_runs() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let arguments = [&DISKS[..], &["--control", socket.to_str().unwrap()]].concat();
    let child = start(directory.path(), &arguments);
    // A client's thread is there, too, and inherits.
    let client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let doorbell = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_doorbell")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let socket_name = socket.to_str().unwrap();
    let seen = doorbell(&["inspect", socket_name]);
    assert!(seen.contains("vcpu1") && seen.contains("iothread0"), "{seen}");
    let all = threads(&child);
    for name in ["doorbell", "signals", "control", "vcpu0", "vcpu1", "iothread0", "iothread1"] {
        assert!(
            all.iter().any(|(found, _)| found == name),
            "no thread {name}: {:?}",
            all.iter().map(|t| &t.0)
        );
    }
    for (name, status) in &all {
        assert_eq!((field(status, "Seccomp"), field(status, "NoNewPrivs")), ("2", "1"), "{name}");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(field(status, set), "0000000000000000", "{set} of {name}");
        }
    }
    drop(client);
    let (code, said) = end(child);
    assert_eq!((code, said.as_str()), (Some(143), ""));
    assert!(!socket.exists(), "the socket's name is taken away");
}

#[test]
fn results_are_put_in_their_places_at_the_end() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (stats, trace) = (place("stats.json"), place("trace.json"));
    fs::write(&stats, "old").unwrap();
    let arguments = [&DISKS[..], &["--stats", &stats, "--trace", &trace]].concat();
    let (code, said) = end(start(directory.path(), &arguments));
    assert_eq!(code, Some(143), "{said}");
    for path in [&stats, &trace] {
        let text = fs::read_to_string(path).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{path}: {text}");
    }
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "the kernel and the two results: {left:?}");
}

#[test]
fn a_sandbox_that_is_off_is_off() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let arguments = [&DISKS[..], &["--sandbox", "off"]].concat();
    let child = start(directory.path(), &arguments);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for (name, status) in threads(&child) {
        for value in ["Seccomp", "CapEff", "NoNewPrivs"] {
            assert_eq!(field(&status, value), field(&own, value), "{value} of {name}");
        }
    }
    assert_eq!(end(child), (Some(143), String::new()));
}
