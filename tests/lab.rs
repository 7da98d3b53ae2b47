//! `scripts/lab`: what it refuses, and what it leaves alone; what its callers ask of the host. No machine is started.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

/// Runs it with these arguments, which must be refused in one sentence. Returns that sentence.
#[track_caller]
fn refused(temporary: &Path, arguments: &[&str]) -> String {
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
    let output =
        Command::new(lab).args(arguments).env("TMPDIR", temporary).output().expect("scripts/lab starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(text.starts_with("lab: ") && text.lines().count() == 1, "{arguments:?}: {text}");
    text
}

#[test]
fn an_option_that_the_intel_lab_lacks_gives_one_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    for (option, word) in [
        (&["--cpus", "2"][..], "one CPU"),
        (&["--memory", "3G"], "2G at most"),
        (&["--device", "nvme"], "no IOMMU"),
    ] {
        let arguments = [&["--vendor", "intel"], option, &["--", "true"]].concat();
        assert!(refused(temporary.path(), &arguments).contains(word), "{option:?}");
    }
    let three = ["--vendor", "intel", "--apicv", "--cpus", "3", "--", "true"];
    assert!(refused(temporary.path(), &three).contains("two CPUs at most"));
    assert!(refused(temporary.path(), &["--apicv", "--", "true"]).contains("--vendor intel"));
    let text = refused(temporary.path(), &["--vendor", "intel", "--shell"]);
    assert!(text.contains("line to type on"), "{text}");
}

#[test]
fn a_host_file_may_have_a_colon_in_its_name() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("a:b");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    // They are taken in this order, so the refusal names the first one that is wrong.
    for good in [file, &format!("{file}:/there"), &format!("{file}:/there/x:y")] {
        let text = refused(temporary.path(), &["--file", good, "--file", "/missing:/there", "--", "true"]);
        assert!(text.contains("no such file: /missing\n"), "{good}: {text}");
    }
}

#[test]
fn the_directory_of_a_lab_that_runs_elsewhere_is_not_swept() {
    let temporary = tempfile::tempdir().unwrap();
    let [live, dead] = ["doorbell-run.live", "doorbell-run.dead"].map(|name| temporary.path().join(name));
    for directory in [&live, &dead] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("console"), "").unwrap();
    }
    // As a lab in another PID namespace holds it.
    let lock = File::open(&live).unwrap();
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
    refused(temporary.path(), &["--file", "/missing", "--", "true"]);
    assert!(live.join("console").exists() && !dead.exists());
}

#[test]
fn a_software_kvm_is_no_hardware_whatever_the_cpu_shows() {
    let temporary = tempfile::tempdir().unwrap();
    let (cpuinfo, modules) = (temporary.path().join("cpuinfo"), temporary.path().join("modules"));
    fs::write(&cpuinfo, "flags\t\t: fpu svm\n").unwrap();
    let hardware = || {
        let mut shell = Command::new("bash");
        shell.args(["-euc", ". scripts/lib/host.sh; hardware_kvm"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        shell.env("CPUINFO", &cpuinfo).env("MODULES", &modules).status().unwrap().success()
    };
    fs::create_dir_all(modules.join("kvm_pvm")).unwrap();
    assert!(!hardware());
    fs::create_dir(modules.join("kvm_amd")).unwrap();
    assert!(hardware());
}
