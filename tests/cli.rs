//! What a user gets for mistakes: one sentence on standard error, the documented exit code, nothing on standard
//! output. No machine is started, so this runs anywhere.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn doorbell(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The sentence, if the exit code is `code` and there is nothing else.
fn sentence(args: &[&str], code: i32) -> String {
    let output = doorbell(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    assert_eq!(error.lines().count(), 1, "{args:?} says more than one line: {error}");
    error.strip_prefix("doorbell: ").unwrap_or_else(|| panic!("{args:?}: {error}")).trim_end().to_string()
}

fn contains(args: &[&str], code: i32, parts: &[&str]) {
    let sentence = sentence(args, code);
    for part in parts {
        assert!(sentence.contains(part), "{args:?}: no {part:?} in: {sentence}");
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).into_os_string().into_string().unwrap()
    }

    fn with(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for args in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["--version"]] {
        let output = doorbell(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    let help = String::from_utf8(doorbell(&["--help"]).stdout).unwrap();
    assert!(help.contains("Exit codes:"));
    let help = String::from_utf8(doorbell(&["run", "--help"]).stdout).unwrap();
    assert!(help.contains("irq-line") && help.contains("resample"));
    let version = String::from_utf8(doorbell(&["--version"]).stdout).unwrap();
    assert!(version.starts_with(concat!("doorbell ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn without_a_verb_it_says_what_there_is() {
    let output = doorbell(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("run"));
}

#[test]
fn a_device_given_twice_is_told_before_anything_is_opened() {
    let run = ["run", "--kernel", "k", "--vfio", "0000:01:00.0", "--vfio", "01:00.0,irq=user"];
    contains(&run, 2, &["0000:01:00.0", "twice"]);
}

#[test]
fn unknown_words_are_named() {
    contains(&["fly"], 2, &["fly"]);
    contains(&["run", "--kernel", "k", "--speed", "9"], 2, &["--speed"]);
    contains(&["run"], 2, &["--kernel"]);
}

#[test]
fn numbers_out_of_range_are_told_with_the_range() {
    contains(&["run", "--kernel", "k", "--cpus", "17"], 2, &["17", "16"]);
    contains(&["run", "--kernel", "k", "--cpus", "0"], 2, &["0", "1"]);
    contains(&["run", "--kernel", "k", "--cpus", "many"], 2, &["many"]);
    contains(&["run", "--kernel", "k", "--memory", "64M"], 2, &["128M", "8G"]);
    contains(&["run", "--kernel", "k", "--memory", "9G"], 2, &["8G"]);
    contains(&["run", "--kernel", "k", "--memory", "1.5G"], 2, &["1.5G"]);
    contains(&["run", "--kernel", "k", "--memory", "512"], 2, &["--memory", "512M"]);
    contains(&["run", "--kernel", "k", "--poll-us", "x"], 2, &["--poll-us", "whole number"]);
    contains(&["run", "--kernel", "k", "--iothreads", "0"], 2, &["0", "16"]);
    contains(&["run", "--kernel", "k", "--console", "tty"], 2, &["stdio", "off"]);
}

#[test]
fn a_disk_mistake_says_what_is_allowed() {
    let run = |disk| ["run", "--kernel", "k", "--disk", disk];
    contains(&run("path=x,turbo"), 2, &["turbo", "backend"]);
    contains(&run("path=x,notify=pigeon"), 2, &["pigeon", "fast-mmio", "exit"]);
    contains(&run("path=x,complete=irqfds"), 2, &["irqfd", "signal-msi"]);
    contains(&run("path=x,queues=99"), 2, &["99", "16"]);
    contains(&run("path=x,queue-size=100"), 2, &["power of two"]);
    contains(&run("backend=null"), 2, &["size"]);
    contains(&run("/some/disk.img"), 2, &["path=/some/disk.img"]);
}

#[test]
fn a_kernel_that_is_none_is_told() {
    let files = Files::new();
    let text = files.with("text", b"not a kernel at all");
    contains(
        &["run", "--kernel", "/nonexistent/bzImage"],
        4,
        &["kernel", "/nonexistent/bzImage", "no such file"],
    );
    contains(&["run", "--kernel", &text], 4, &[&text, "not a kernel"]);
    contains(&["run", "--kernel", &files.path("")], 4, &["directory"]);
    let kernel = files.with("elf", b"\x7fELF");
    contains(&["run", "--kernel", &kernel, "--initrd", "/nonexistent/rd"], 4, &["initrd", "/nonexistent/rd"]);
}

#[test]
fn a_disk_that_cannot_be_used_is_told() {
    let files = Files::new();
    let odd = files.with("odd", &[0; 1000]);
    let empty = files.with("empty", b"");
    let run = |disk: &str, code, parts: &[&str]| {
        contains(
            &["run", "--kernel", "/nonexistent", "--disk", &format!("path={disk},backend=sync")],
            code,
            parts,
        );
    };
    run("/nonexistent/disk.img", 4, &["/nonexistent/disk.img"]);
    run(&odd, 4, &["1000", "512"]);
    run(&empty, 4, &["empty"]);
    run(&files.path(""), 4, &["directory"]);
}

#[test]
fn a_locked_disk_is_told_and_left_alone() {
    let files = Files::new();
    let disk = files.with("disk", &[7; 4096]);
    let args = ["run", "--kernel", "/nonexistent", "--disk", &format!("path={disk},backend=sync")]
        .map(str::to_string);
    // The same disk twice in one machine: the second --disk finds the first one's lock.
    let twice: Vec<&str> = args.iter().chain(&args[3..]).map(String::as_str).collect();
    contains(&twice, 4, &["locked", &disk]);
    assert_eq!(std::fs::read(&disk).unwrap(), [7; 4096]);
}

#[test]
fn threads_that_are_not_there_are_told() {
    let args = ["run", "--kernel", "k", "--disk", "backend=null,size=1M,iothread=3", "--iothreads", "2"];
    contains(&args, 2, &["disk0", "iothread=3", "--iothreads"]);
}

#[test]
fn check_prints_the_same_list_for_people_and_for_programs() {
    let people = doorbell(&["check"]);
    let programs = doorbell(&["check", "--json"]);
    assert_eq!(people.status.code(), programs.status.code());
    let text = String::from_utf8(people.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&programs.stdout).unwrap();
    assert_eq!(json["schema"], "doorbell-check/1");
    assert_eq!(json["run_works"], programs.status.success());
    for item in json["items"].as_array().unwrap() {
        let name = item["name"].as_str().unwrap();
        assert!(text.lines().any(|line| line.contains(name)), "{name} is not in the list");
        assert!(item["present"].is_boolean() && item["needed"].is_boolean() && item["found"].is_string());
    }
    assert!(programs.status.success() || programs.status.code() == Some(3));
}

/// A file name that no shell could print.
#[test]
fn strange_file_names_do_no_harm() {
    let name = PathBuf::from("/nonexistent/\u{1f514}\n");
    let output =
        Command::new(env!("CARGO_BIN_EXE_doorbell")).args(["run", "--kernel"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_sandbox_that_does_not_fit_is_off_and_only_who_asked_for_it_is_told() {
    let run = ["run", "--kernel", "/dev/null", "--stats", "/no/such/directory/file"];
    for more in [["--on-reset", "restart"], ["--disk", "vhost-user=/no/such"]] {
        let output = doorbell(&[&run[..], &more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("sandbox"), "{said}");
        let output = doorbell(&[&run[..], &more, &["--sandbox", "on"]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("sandbox: off: ") && said.contains(more[0]), "{said}");
    }
}

#[test]
fn bench_says_what_does_not_fit_before_it_measures() {
    contains(&["bench", "--pin", "0,999999"], 2, &["--pin", "999999"]);
    contains(&["bench", "--rounds", "0"], 2, &["1..=1000"]);
    contains(&["bench", "--quick"], 2, &["--guest linux"]);
    contains(&["bench", "--json", "/no/such/directory/r.json"], 4, &["--json", "/no/such"]);
    let output = doorbell(&["bench", "--dry-run", "--rounds", "3", "--poll-us", "0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("3 rounds") && text.lines().count() == 1, "{text}");
}

#[test]
fn bench_diff_takes_two_results_and_nothing_else() {
    let files = Files::new();
    let good = files.with("a.json", br#"{"schema": "doorbell-bench/2", "host": {}, "run": {}, "rows": []}"#);
    let other = files.with("b.json", br#"{"schema": "doorbell-stats/1"}"#);
    let text = files.with("c.json", b"not JSON");
    contains(&["bench", "diff", &good], 2, &["B.json"]);
    contains(&["bench", "diff", &good, &files.path("none")], 4, &["none", "cannot be read"]);
    contains(&["bench", "diff", &good, &other], 4, &["b.json", "doorbell-stats/1", "doorbell-bench/2"]);
    contains(&["bench", "diff", &text, &good], 4, &["c.json", "not JSON"]);
    let output = doorbell(&["bench", "diff", &good, &good, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["schema"]), (Some(0), &"doorbell-bench-diff/1".into()));
}

#[test]
fn a_fifo_is_refused_as_kernel_initrd_and_unread_console() {
    let files = Files::new();
    let fifo = files.path("fifo");
    let name = std::ffi::CString::new(fifo.clone()).unwrap();
    // SAFETY: a valid string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let kernel = files.with("kernel", &common::elf(&common::power_off()));
    contains(&["run", "--kernel", &fifo], 4, &[&fifo, "not a regular file"]);
    contains(&["run", "--kernel", &kernel, "--initrd", &fifo], 4, &[&fifo, "not a regular file"]);
    if doorbell::machine::open_kvm().is_ok() {
        let console = format!("file={fifo}");
        contains(&["run", "--kernel", &kernel, "--console", &console], 4, &[&fifo, "nobody reads from"]);
    }
}

#[test]
fn a_command_line_that_an_elf_kernel_would_die_of_is_refused() {
    if doorbell::machine::open_kvm().is_err() {
        return;
    }
    let files = Files::new();
    let kernel = files.with("kernel", &common::elf(&common::power_off()));
    let (fits, long) = ("x".repeat(2047), "x".repeat(2048));
    contains(&["run", "--kernel", &kernel, "--cmdline", &long], 2, &["2048 bytes", "2047"]);
    assert_eq!(doorbell(&["run", "--kernel", &kernel, "--cmdline", &fits]).status.code(), Some(0));
}

#[test]
fn a_disk_in_memory_is_not_read_where_its_file_has_nothing() {
    if doorbell::machine::open_kvm().is_err() {
        return;
    }
    let files = Files::new();
    let kernel = files.with("kernel", &common::elf(&common::power_off()));
    let disk = files.with("disk", b"");
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    // To read it would take hours.
    file.set_len(8 << 40).unwrap();
    let disk = format!("backend=mem,path={disk}");
    assert_eq!(doorbell(&["run", "--kernel", &kernel, "--disk", &disk]).status.code(), Some(0));
}

#[test]
fn the_exit_code_tells_how_the_guest_ended() {
    use doorbell::machine::layout;
    if doorbell::machine::open_kvm().is_err() {
        return;
    }
    let files = Files::new();
    let idle = vec![0xeb, 0xfe];
    let reset = [common::out(layout::RESET_PORT, layout::RESET_VALUE), idle.clone()].concat();
    let panic = [common::out(layout::PVPANIC_PORT, 1), idle].concat();
    let status = |v| [common::out(layout::DEBUG_EXIT_PORT, v), common::power_off()].concat();
    for (guest, code, more) in [
        (common::power_off(), 0, None),
        (reset, 5, None),
        (vec![0x0f, 0x0b], 5, None),
        (panic, 6, None),
        (status(0), 1, Some("--debug-exit")),
        (status(21), 43, Some("--debug-exit")),
        (status(0xff), 255, Some("--debug-exit")),
        // Nothing is at that port, and the guest goes on to its power-off.
        (status(21), 0, None),
    ] {
        let kernel = files.with("kernel", &common::elf(&guest));
        let arguments = ["run", "--kernel", &kernel, "--memory", "128M"];
        let output = doorbell(&arguments.into_iter().chain(more).collect::<Vec<_>>());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert_eq!(error.contains("panicked"), code == 6, "{error}");
    }
}

/// Wherever it runs: each assumption has its line, and what could not be tried or counted says why.
#[test]
fn the_hardware_report_is_one_page_with_an_outcome_for_each_assumption() {
    let output = doorbell(&["check", "--hardware-report"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("# doorbell hardware report\n"), "{text}");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 12, "{text}");
    let outcomes = ["as expected", "NOT AS EXPECTED", "completed, not counted", "not run", "by hand"];
    for row in &rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 3 && outcomes.contains(&cells[1]) && cells[2].len() > 10, "{row}");
        // The guest itself does what it should wherever it runs.
        assert!(!row.contains("did not"), "{row}");
    }
    let usable = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    match output.status.code() {
        Some(0) => assert!(usable && !text.contains("NOT AS EXPECTED"), "{text}"),
        Some(3) => assert!(!usable && text.contains("not run"), "{text}"),
        code => panic!("{code:?}: {text}"),
    }
    let refused = doorbell(&["check", "--hardware-report", "--json"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_lesson_that_cannot_be_given_is_refused() {
    contains(&["lesson", "0"], 2, &["no lesson 0", "from 1 to"]);
    contains(&["lesson", "1", "--answer", "1", "--answer", "2"], 2, &["--answer", "1 in all"]);
    contains(&["lesson", "--check-all", "1"], 2, &["--check-all"]);
    contains(&["lesson", "1", "--lab-counts", "/no/such/file"], 4, &["--lab-counts /no/such/file"]);
    contains(&["lesson", "13", "--answer", "1"], 2, &["2 in all"]);
    contains(&["lesson", "13"], 3, &["scripts/lesson 13"]);
    contains(&["lesson", "broken", "0"], 2, &["no broken 0", "from 1 to"]);
    contains(&["lesson", "broken", "--judge"], 2, &["NUMBER"]);
    contains(&["trace", "/no/such/socket", "--html", "-", "--out", "-"], 2, &["--html"]);
}
