//! Files that doorbell writes: nobody else's file is harmed, and what cannot be written is said.

mod common;
#[path = "common/refusal.rs"]
mod refusal;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use refusal::tells;

fn doorbell(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn no_kvm() -> bool {
    doorbell::machine::open_kvm().inspect_err(|error| println!("skipped: {error}")).is_err()
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn with(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().into()
    }

    /// A guest that turns itself off.
    fn kernel(&self) -> String {
        self.with("kernel", &common::elf(&common::power_off()))
    }
}

const QUICK: [&str; 7] =
    ["bench", "--rounds", "1", "--requests", "1", "--filter", "read-512-1 fast-mmio+irqfd null"];

#[test]
fn no_output_is_a_file_that_the_run_reads() {
    let files = Files::new();
    let (kernel, disk) = (files.kernel(), files.with("disk", &[7; 1 << 20]));
    let (to_disk, console) = (format!("path={disk}"), format!("file={disk}"));
    for output in [["--console", &console], ["--stats", &disk], ["--trace", &disk], ["--stats", &kernel]] {
        let arguments = ["run", "--kernel", &kernel, "--disk", &to_disk, output[0], output[1]];
        tells(&doorbell(&arguments).output().unwrap(), 2, &[output[0], "same file"]);
    }
    assert!(fs::read(&disk).unwrap() == [7; 1 << 20], "the disk is as it was");
}

#[test]
fn a_run_writes_its_counts_to_a_file_to_standard_output_or_to_a_pipe() {
    if no_kvm() {
        return;
    }
    let files = Files::new();
    let kernel = files.kernel();
    let run = |stats: &str| {
        let arguments = ["run", "--memory", "128M", "--kernel", &kernel, "--stats", stats];
        doorbell(&arguments).output().unwrap()
    };
    let is_stats = |bytes: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["schema"] == "doorbell-stats/1"
    };
    for stdout in ["-", "/dev/stdout", "/dev/fd/1"] {
        assert!(is_stats(&run(stdout).stdout));
    }
    assert!(is_stats(&run("/dev/stderr").stderr));
    let path = files.with("stats", b"old");
    assert_eq!(run(&path).status.code(), Some(0));
    assert!(is_stats(&fs::read(&path).unwrap()));
    assert_eq!(run("/dev/null").status.code(), Some(0));
    tells(&run("/dev/full"), 4, &["--stats", "No space left"]);
    assert_eq!(fs::read_dir(files.0.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_failed_write_to_standard_output_is_a_failure_of_every_verb() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut verbs = vec![vec!["check"], vec!["bench", "--dry-run"], vec!["--help"], vec!["--version"]];
    if !no_kvm() {
        verbs.push(QUICK.to_vec());
    }
    for arguments in verbs {
        tells(
            &doorbell(&arguments).stdout(full()).output().unwrap(),
            1,
            &["cannot be written", "No space left"],
        );
    }
}

#[test]
fn a_bench_that_a_signal_ends_leaves_no_file() {
    if no_kvm() {
        return;
    }
    let files = Files::new();
    let (json, html) = (files.with("r.json", b"old"), files.0.path().join("r.html"));
    for (ignored, sent, code) in
        [(None, vec![libc::SIGINT], 130), (Some(libc::SIGHUP), vec![libc::SIGHUP, libc::SIGTERM], 143)]
    {
        let mut command =
            doorbell(&["bench", "--progress", "lines", "--json", &json, "--html", html.to_str().unwrap()]);
        if let Some(signal) = ignored {
            // SAFETY: signal() is async-signal-safe.
            unsafe {
                std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                    Ok(_ = libc::signal(signal, libc::SIG_IGN))
                })
            };
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut String::new()).unwrap();
        for signal in sent {
            // SAFETY: our own child, which has not been waited for.
            unsafe { libc::kill(child.id() as i32, signal) };
        }
        let _ = stderr.read_to_end(&mut Vec::new());
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    assert_eq!(fs::read_to_string(&json).unwrap(), "old");
    let mut names: Vec<_> =
        fs::read_dir(files.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["r.json"]);
}
