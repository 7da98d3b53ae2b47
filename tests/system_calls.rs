//! The system calls that doorbell counts are those that the kernel sees: 1,000 requests on each path under strace. An I/O thread makes
//! its waits, its interrupts, and what the backend needs, and no other call.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use doorbell::bench::PROBE_ELF;
use serde_json::Value;

const REQUESTS: u64 = 1000;

/// The calls of the thread `name` by their names, until the counts were written.
fn calls_of(name: &str, log: &str) -> BTreeMap<String, u64> {
    let named = format!("PR_SET_NAME, \"{name}\"");
    let thread = log.lines().find(|line| line.contains(&named)).and_then(|line| line.split(' ').next());
    let thread = thread.unwrap_or_else(|| panic!("no thread {name}"));
    let mut calls = BTreeMap::new();
    for line in log.lines().take_while(|line| !line.contains("doorbell-stats/")) {
        // "PID NAME(...", and "PID <... NAME resumed>" for the end of a call that another thread's line interrupted.
        let (pid, call) = line.split_once(' ').unwrap();
        if let (true, Some((name, _))) = (pid == thread, call.trim_start().split_once('(')) {
            *calls.entry(name.to_string()).or_default() += 1;
        }
    }
    calls
}

/// Runs the probe with `disk` under strace; returns the calls of its I/O thread, and what doorbell counted.
fn traced(disk: &str, irq: &str) -> (BTreeMap<String, u64>, Value) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("kernel"), PROBE_ELF).unwrap();
    let mut command = Command::new("strace");
    // Calls of these names are made while the thread starts and ends, too; those for requests are of the others.
    command.args(["-f", "-s", "40", "-e", "trace=!read,futex,mmap,munmap,madvise", "-o"]).arg(at("log"));
    // Entering the sandbox costs calls of its own, once.
    command.args([
        env!("CARGO_BIN_EXE_doorbell"),
        "run",
        "--memory",
        "128M",
        "--disk",
        disk,
        "--sandbox",
        "off",
    ]);
    command.arg("--kernel").arg(at("kernel")).arg("--stats").arg(at("stats")).arg("--cmdline");
    command.arg(format!("tsc_khz=2000000 gap_us=0 deadline_ms=120000 requests={REQUESTS} depth=1 irq={irq}"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("\"event\":\"end\",\"ok\":true"),
        "{disk}: {text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stats = serde_json::from_slice(&std::fs::read(at("stats")).unwrap()).unwrap();
    (calls_of("iothread0", &std::fs::read_to_string(at("log")).unwrap()), stats)
}

#[test]
fn the_system_calls_of_each_path_are_those_that_are_counted() {
    if let Err(error) = doorbell::machine::open_kvm() {
        return println!("skipped: {error}");
    }
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return println!("skipped: no strace, or it may not trace (scripts/setup installs it)");
    }
    // On a disk's file system: files in memory are served without the ring.
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    image.as_file().set_len(64 << 20).unwrap();
    let file = format!("path={}", image.path().display());
    let mut disks = vec![];
    for complete in ["auto", "irqfd", "signal-msi", "irq-line", "resample"] {
        disks.push((format!("backend=null,size=64M,complete={complete}"), "epoll_wait", complete));
        disks.push((format!("backend=sync,{file},complete={complete}"), "epoll_wait", complete));
        match doorbell::host::io_uring_available() {
            Ok(()) => disks.push((format!("{file},complete={complete}"), "io_uring_enter", complete)),
            Err(why) => println!("skipped io_uring: {why}"),
        }
    }
    for (disk, wait, complete) in disks {
        let level = matches!(complete, "irq-line" | "resample");
        let (mut calls, stats) = traced(&disk, if level { "intx" } else { "msix" });
        let (thread, queue) = (&stats["loops"][0], &stats["disks"][0]["queues"][0]);
        assert_eq!(queue["requests"], REQUESTS, "{disk}");
        assert_eq!(calls.remove(wait), thread["waits"].as_u64(), "{disk}: waits of {calls:?}");
        // What a request may need beside the wait: a write to an eventfd, an ioctl of KVM, reads and writes of the file.
        let made = ["write", "ioctl", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2"];
        let found: u64 = made.iter().filter_map(|name| calls.remove(*name)).sum();
        assert_eq!(found, queue["system_calls"], "{disk}: {calls:?} {queue}");
        // And no call of another kind, again and again.
        assert!(calls.values().all(|&count| count < 20), "{disk}: {calls:?}");
    }
}
