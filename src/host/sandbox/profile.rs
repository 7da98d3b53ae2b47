//! What one kind of thread keeps, and the system calls that take everything else away.

use std::sync::Arc;

use seccompiler::BpfProgram;

use super::filter::{self, Allowed};
use super::{Files, SandboxMode, capabilities};

/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: a filter changes no speculation mitigation of its thread, so that a measurement inside
/// is comparable with one outside. Before Linux 5.16 a filter would switch on SSBD.
const SPEC_ALLOW: libc::c_ulong = 1 << 2;

/// What one kind of thread keeps.
#[derive(Debug)]
pub struct Profile {
    mode: SandboxMode,
    program: BpfProgram,
    files: Option<Arc<Files>>,
}

/// What could not be entered: a step and the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    NoNewPrivileges,
    Landlock,
    Capabilities,
    Seccomp,
}

impl Profile {
    /// `allowed` system calls, and no files but `files`; `None`: files are not restricted, the kernel cannot.
    pub fn new(mode: SandboxMode, allowed: &[Allowed], files: Option<Arc<Files>>) -> Profile {
        Profile { mode, program: filter::program(allowed, mode), files }
    }

    /// Confines the calling thread. Async-signal-safe.
    pub(super) fn enter(&self) -> Result<(), (Step, i32)> {
        let step = |step, errno| if errno == 0 { Ok(()) } else { Err((step, errno)) };
        step(Step::NoNewPrivileges, no_new_privileges())?;
        if self.mode == SandboxMode::On {
            let fd = self.files.as_ref().and_then(|files| files.fd());
            step(Step::Landlock, fd.map_or(0, restrict_files))?;
            step(Step::Capabilities, capabilities::drop_all())?;
        }
        step(Step::Seccomp, install(&self.program))
    }
}

/// errno of the calling thread.
pub(super) fn errno() -> i32 {
    // SAFETY: the calling thread's own variable.
    unsafe { *libc::__errno_location() }
}

fn no_new_privileges() -> i32 {
    // SAFETY: no pointers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => 0,
        _ => errno(),
    }
}

fn restrict_files(ruleset: i32) -> i32 {
    // SAFETY: no pointers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } {
        0 => 0,
        _ => errno(),
    }
}

fn install(program: &BpfProgram) -> i32 {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies the program; seccompiler's sock_filter is the kernel's.
    let set = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, SPEC_ALLOW, &raw const filter)
    };
    if set == 0 { 0 } else { errno() }
}
