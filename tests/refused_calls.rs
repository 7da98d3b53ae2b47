//! System calls that a seccomp filter around doorbell refuses: a sentence and an exit code, never a VM that hangs.

mod common;
#[path = "common/refusal.rs"]
mod refusal;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use refusal::tells;

/// KVM_RUN, _IO(KVMIO, 0x80).
const KVM_RUN: u32 = 0xae80;

/// What fails, with which errno.
#[derive(Clone, Copy)]
struct Refused {
    call: libc::c_long,
    /// Its second argument, the request of an ioctl; `None`: whatever it is.
    request: Option<u32>,
    errno: i32,
}

impl From<libc::c_long> for Refused {
    fn from(call: libc::c_long) -> Refused {
        Refused { call, request: None, errno: libc::EPERM }
    }
}

/// Makes a system call fail in `command` and all its threads.
fn refuse(command: &mut Command, Refused { call, request, errno }: Refused) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The second argument of seccomp_data, its low half; without one, the number again.
    let (at, value) = request.map_or((0, call as u32), |request| (24, request));
    let program = [
        op(LOAD, 0, 0, 0), // the number, the first field of seccomp_data
        op(JUMP_IF, 0, 3, call as u32),
        op(LOAD, 0, 0, at),
        op(JUMP_IF, 0, 1, value),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: prctl is async-signal-safe; the filter lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog { len: 6, filter: program.as_ptr().cast_mut() };
            let set = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0;
            if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
}

/// Runs a guest that does nothing for ever.
fn run(arguments: &[&str], refused: impl Into<Refused>) -> Option<std::process::Output> {
    if let Err(error) = doorbell::machine::open_kvm() {
        eprintln!("skipped: {error}");
        return None;
    }
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    kernel.write_all(&common::elf(&[0xeb, 0xfe])).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["run", "--memory", "128M", "--kernel"]).arg(kernel.path()).args(arguments);
    refuse(command.stdin(Stdio::null()), refused.into());
    Some(command.output().unwrap())
}

#[test]
fn an_io_uring_that_cannot_be_entered_is_refused_before_the_guest_runs() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let disk = format!("path={}", disk.path().display());
    let Some(output) = run(&["--disk", &disk], libc::SYS_io_uring_enter) else { return };
    tells(&output, 3, &["io_uring", "seccomp"]);
}

#[test]
fn a_loop_that_cannot_wait_ends_the_run() {
    let Some(output) = run(&["--disk", "backend=null,size=1M"], libc::SYS_epoll_wait) else { return };
    tells(&output, 1, &["died: waiting failed"]);
}

#[test]
fn a_kvm_that_never_has_the_resources_to_run_is_told_of() {
    // As where the limit of processes keeps KVM from starting its worker thread (`prlimit --nproc`).
    let again = Refused { call: libc::SYS_ioctl, request: Some(KVM_RUN), errno: libc::EAGAIN };
    let Some(output) = run(&[], again) else { return };
    tells(&output, 3, &["KVM_RUN", "EAGAIN", "ulimit -u"]);
}

#[test]
fn a_standard_error_that_is_full_costs_the_message_and_nothing_else() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    assert_eq!(wrong.args(["fly"]).stderr(full()).status().unwrap().code(), Some(2));
    if doorbell::machine::open_kvm().is_err() {
        return;
    }
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    kernel.write_all(&common::elf(&common::power_off())).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    run.args(["run", "--memory", "128M", "--kernel"]).arg(kernel.path()).stdin(Stdio::null()).stderr(full());
    assert_eq!(run.status().unwrap().code(), Some(0));
}
