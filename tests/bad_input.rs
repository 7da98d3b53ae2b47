//! What the host or the user gets wrong, beyond the command line (tests/cli.rs): one sentence, the documented exit code,
//! and nothing lost.

mod common;
#[path = "common/refusal.rs"]
mod refusal;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use refusal::tells;
use tempfile::TempDir;

/// A user without rights.
const NOBODY: u32 = 65534;

fn doorbell() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.stdin(Stdio::null());
    command
}

fn root() -> bool {
    // SAFETY: no arguments, always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Why /dev/kvm cannot be used; printed before a test that needs it is skipped.
fn no_kvm() -> bool {
    doorbell::machine::open_kvm().inspect_err(|error| println!("skipped: {error}")).is_err()
}

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().expect("a temporary directory"))
    }

    fn with(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    }

    /// A file of `len` bytes of which none is stored.
    fn sparse(&self, name: &str, len: u64) -> String {
        let path = self.with(name, b"");
        File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("a sparse file");
        path
    }

    /// A guest that does nothing for ever: jmp $.
    fn idle_kernel(&self) -> String {
        self.with("idle", &common::elf(&[0xeb, 0xfe]))
    }
}

/// doorbell as a user without rights. Its file is opened here, because that user may not see the directory.
fn as_nobody(arguments: &[&str]) -> Output {
    let binary = File::open(env!("CARGO_BIN_EXE_doorbell")).expect("the binary");
    let mut command = Command::new("/proc/self/fd/9");
    command.args(arguments).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
    // SAFETY: dup2 is async-signal-safe; the descriptor lives as long as the closure.
    unsafe {
        command.pre_exec(move || {
            use std::os::fd::AsRawFd;
            if libc::dup2(binary.as_raw_fd(), 9) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    command.output().expect("doorbell runs as nobody")
}

#[test]
fn without_dev_kvm_it_says_how_to_get_it() {
    let files = Files::new();
    let kernel = files.idle_kernel();
    let output = if Path::new("/dev/kvm").exists() {
        // A mount namespace of its own with an empty /dev.
        let script = "mount -t tmpfs none /dev && exec \"$@\"";
        let mut hidden = Command::new("unshare");
        hidden.args(["--mount", "--", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_doorbell")]);
        let output = hidden.args(["run", "--kernel", &kernel]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("doorbell: ") => {
                return println!(
                    "skipped: /dev/kvm cannot be hidden here: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Ok(output) => output,
            Err(error) => return println!("skipped: no unshare: {error}"),
        }
    } else {
        doorbell().args(["run", "--kernel", &kernel]).output().expect("doorbell runs")
    };
    tells(&output, 3, &["/dev/kvm"]);
}

#[test]
fn without_permission_it_says_how_to_get_it() {
    let files = Files::new();
    let Ok(kvm) = fs::metadata("/dev/kvm") else { return println!("skipped: no /dev/kvm here") };
    if !root() || kvm.permissions().mode() & 0o006 == 0o006 {
        return println!("skipped: this needs root, and a /dev/kvm that is not for everybody");
    }
    fs::set_permissions(files.0.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    tells(&as_nobody(&["run", "--kernel", &files.idle_kernel()]), 3, &["/dev/kvm", "permission", "group"]);
}

#[test]
fn a_file_that_may_not_be_read_is_told() {
    if !root() {
        return println!("skipped: this needs root, to become somebody else");
    }
    let files = Files::new();
    fs::set_permissions(files.0.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let secret = files.with("secret", &[0; 4096]);
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("it is ours");
    let disk = format!("path={secret},backend=sync");
    let output = as_nobody(&["run", "--kernel", "/nonexistent", "--disk", &disk]);
    tells(&output, 4, &[&secret, "ermission"]);
    // Readable only: to be written to, it is refused, and says what would do.
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).expect("it is ours");
    let output = as_nobody(&["run", "--kernel", "/nonexistent", "--disk", &disk]);
    tells(&output, 4, &[&secret, "readonly"]);
}

#[test]
fn files_that_do_not_fit_into_ram_are_reported() {
    if no_kvm() {
        return;
    }
    let files = Files::new();
    let kernel = files.idle_kernel();
    let initrd = files.sparse("initrd", 1 << 30);
    let run = |arguments: &[&str]| {
        doorbell()
            .args(["run", "--memory", "128M", "--kernel"])
            .args(arguments)
            .output()
            .expect("doorbell runs")
    };
    tells(&run(&[&kernel, "--initrd", &initrd]), 4, &[&initrd, "--memory"]);
    // The segment's size in memory, in the first program header.
    let mut image = common::elf(&[0xeb, 0xfe]);
    image[64 + 40..64 + 48].copy_from_slice(&(1u64 << 30).to_le_bytes());
    let huge = files.with("huge", &image);
    tells(&run(&[&huge]), 4, &[&huge, "--memory"]);
}

#[test]
fn more_disks_than_slots_are_told() {
    if no_kvm() {
        return;
    }
    let files = Files::new();
    let mut command = doorbell();
    command.args(["run", "--kernel", &files.idle_kernel()]);
    for _ in 0..33 {
        command.args(["--disk", "backend=null,size=1M"]);
    }
    tells(&command.output().expect("doorbell runs"), 2, &["31"]);
}

#[test]
fn a_stats_file_that_cannot_be_is_told_before_anything_starts() {
    let output = doorbell().args(["run", "--kernel", "k", "--stats", "/nonexistent/stats"]).output();
    tells(&output.expect("doorbell runs"), 4, &["--stats", "/nonexistent/stats"]);
}

/// A process that ends with the test.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_in_use_by_another_doorbell_is_told_and_left_alone() {
    if no_kvm() {
        return;
    }
    let files = Files::new();
    let content = [0x5a; 8192];
    let path = files.with("disk", &content);
    let disk = format!("path={path},backend=sync");
    let kernel = files.idle_kernel();
    let socket = format!("{path}.control");
    let first = doorbell()
        .args(["run", "--kernel", &kernel, "--disk", &disk, "--control", &socket])
        .stdout(Stdio::null())
        .spawn();
    let mut first = Ours(first.expect("doorbell runs"));
    // Its control socket is there once its disk is open. The deadline only ends a test that has failed.
    let end = Instant::now() + Duration::from_secs(60);
    while !std::path::Path::new(&socket).exists() {
        assert!(first.0.try_wait().expect("it is ours").is_none(), "the first doorbell has ended");
        assert!(Instant::now() < end, "the first doorbell does not come up");
        std::thread::yield_now();
    }
    let second = doorbell().args(["run", "--kernel", &kernel, "--disk", &disk]).output();
    tells(&second.expect("doorbell runs"), 4, &["locked", &path]);
    // Readers do not disturb each other, but a writer is there.
    let reader = format!("{disk},readonly");
    let third = doorbell().args(["run", "--kernel", &kernel, "--disk", &reader]).output();
    tells(&third.expect("doorbell runs"), 4, &["locked", &path]);
    assert_eq!(fs::read(&path).expect("it is there"), content);
}
