//! The system calls and files that each thread of a VM keeps: the tables behind `--sandbox`.
//!
//! A line is here because a test or a run needed it. A thread that needs a new system call ends the process and says which;
//! decide then whether the work belongs to that thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::sandbox::{
    Abilities, Allowed, Arguments, Call, Files, Profile, Right, SandboxMode, calls, confine,
};
use crate::host::{Posting, ProcInterrupts, has_spare_cpu, log};
use ioctls::*;

#[path = "sandbox_ioctls.rs"]
mod ioctls;

/// Whether and how the threads of a VM are confined, before the first instruction of its guest.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    /// On, logging only, or off.
    pub mode: SandboxMode,
    /// What the VMM's main thread, its signals and its control socket still need by name, beside /proc for reading.
    pub files: Vec<(PathBuf, Right)>,
}

impl SandboxConfig {
    /// No sandbox.
    pub fn off() -> SandboxConfig {
        SandboxConfig { mode: SandboxMode::Off, files: Vec::new() }
    }
}

/// Confines the threads of the calling thread's group. If the host cannot enforce something, one line says so, and the VM
/// runs without it.
pub(super) fn enter(config: &SandboxConfig) {
    let mode = config.mode;
    if mode == SandboxMode::Off {
        return;
    }
    let host = Abilities::of_this_host();
    if !host.seccomp {
        return log::warn("sandbox", format_args!("off: this kernel has no seccomp filters"));
    }
    if host.landlock == 0 && mode == SandboxMode::On {
        log::warn(
            "sandbox",
            format_args!("this kernel has no Landlock: files are guarded by system call filters alone"),
        );
    }
    // What is read once and kept is read now.
    log::open();
    has_spare_cpu();
    let _ = ProcInterrupts::now();
    Posting::keep();
    keep_heaps();
    if let Err(why) = profiles(config).and_then(|all| {
        confine(&|thread| all[kind_of(thread) as usize].clone()).map_err(|error| error.to_string())
    }) {
        log::warn("sandbox", format_args!("not complete: {why}"));
    }
}

/// Lets no thread's heap give memory back: glibc reads /proc/sys/vm/overcommit_memory before the first one shrinks (`shrink_heap`
/// in malloc/arena.c), on whichever thread frees. A heap has at most 64 MiB, which is below this threshold.
fn keep_heaps() {
    // SAFETY: no pointers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Kinds of threads, by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Vcpu,
    IoThread,
    VfioPoller,
    Signals,
    Control,
    Main,
}

const KINDS: [Kind; 6] =
    [Kind::Vcpu, Kind::IoThread, Kind::VfioPoller, Kind::Signals, Kind::Control, Kind::Main];

/// By the name that the thread was started with.
fn kind_of(thread: &str) -> Kind {
    let kinds = [
        ("vcpu", Kind::Vcpu),
        ("iothread", Kind::IoThread),
        ("vfio", Kind::VfioPoller),
        ("signals", Kind::Signals),
        ("control", Kind::Control),
    ];
    kinds.into_iter().find(|(name, _)| thread.starts_with(name)).map_or(Kind::Main, |(_, kind)| kind)
}

/// One for each of [`KINDS`].
fn profiles(config: &SandboxConfig) -> Result<Vec<Arc<Profile>>, String> {
    let mut readable = config.files.clone();
    // The control socket's view of the threads, and the sentence that names a result's file.
    readable.push((Path::new("/proc").into(), Right::Read));
    let (none, some) = match config.mode {
        SandboxMode::On => (Some(Arc::new(Files::only(&[])?)), Some(Arc::new(Files::only(&readable)?))),
        _ => (None, None),
    };
    let of = |kind| match kind {
        Kind::Vcpu | Kind::IoThread | Kind::VfioPoller => none.clone(),
        Kind::Signals | Kind::Control | Kind::Main => some.clone(),
    };
    Ok(KINDS.map(|kind| Arc::new(Profile::new(config.mode, &table(kind), of(kind)))).to_vec())
}

/// What threads of `kind` may ask for.
fn table(kind: Kind) -> Vec<Allowed> {
    let mut all = everybody();
    let mut ioctls: Vec<u64> = TERMINAL.to_vec();
    match kind {
        Kind::Vcpu => {
            // First in the list: the filter looks at it first.
            ioctls.splice(0..0, VCPU);
            ioctls.extend(DEVICE_REGISTERS);
            all.extend(any(&DEVICES));
        }
        Kind::IoThread => {
            ioctls.splice(0..0, INTERRUPTS);
            ioctls.extend(DISK);
            all.extend(any(&LOOP));
        }
        Kind::VfioPoller => {
            ioctls.splice(0..0, INTERRUPTS);
            ioctls.extend(DEVICE_REGISTERS);
            all.extend(any(&LOOP));
            all.extend(any(&DEVICES));
        }
        Kind::Signals => all.extend(any(&calls![SYS_kill SYS_unlink SYS_unlinkat])),
        Kind::Control => {
            ioctls.extend(DEVICE_REGISTERS);
            all.extend(any(&DEVICES));
            all.extend(any(&FILES));
            all.extend(any(&SOCKETS));
            all.extend(any(&NEW_THREAD));
            all.extend(threads());
        }
        Kind::Main => {
            ioctls.splice(0..0, INTERRUPTS);
            ioctls.extend(VCPU);
            ioctls.extend(DEVICE_REGISTERS);
            ioctls.extend(DISK);
            all.extend(any(&LOOP));
            all.extend(any(&DEVICES));
            all.extend(any(&FILES));
            all.extend(any(&SOCKETS));
            // The timer looks whether a terminal that another job has is ours again.
            all.extend(any(&calls![SYS_wait4 SYS_waitid SYS_timerfd_settime]));
        }
    }
    let [ioctl] = calls![SYS_ioctl];
    all.push(Allowed(ioctl, Arguments::OneOf(1, ioctls)));
    all
}

fn any(calls: &[Call]) -> impl Iterator<Item = Allowed> + '_ {
    calls.iter().map(|&call| Allowed(call, Arguments::Any))
}

/// Memory that is not executed, locks, clocks, descriptors that are open, the end of a thread or of the process.
fn everybody() -> Vec<Allowed> {
    let own = u64::from(std::process::id());
    let mut all: Vec<_> = any(&calls![
        SYS_futex SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_read SYS_write SYS_readv SYS_writev SYS_close SYS_fcntl
        SYS_poll SYS_ppoll SYS_sendto SYS_clock_gettime SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday
        SYS_getpid SYS_gettid SYS_getpgrp SYS_rt_sigreturn SYS_rt_sigprocmask SYS_rt_sigaction SYS_sigaltstack
        SYS_restart_syscall SYS_sched_yield SYS_getrandom SYS_exit SYS_exit_group
    ])
    .collect();
    let [mmap, mprotect, tgkill] = calls![SYS_mmap SYS_mprotect SYS_tgkill];
    all.push(Allowed(mmap, Arguments::Without(2, libc::PROT_EXEC as u64)));
    all.push(Allowed(mprotect, Arguments::Without(2, libc::PROT_EXEC as u64)));
    all.push(Allowed(tgkill, Arguments::OneOf(0, vec![own])));
    all
}

/// New threads, not new processes. clone3(2) takes its flags by pointer, which a filter cannot see; a process that it made
/// would be as confined as this thread.
fn threads() -> Vec<Allowed> {
    let [clone, clone3, name] = calls![SYS_clone SYS_clone3 SYS_prctl];
    vec![
        Allowed(clone, Arguments::With(0, libc::CLONE_THREAD as u64)),
        Allowed(clone3, Arguments::Any),
        Allowed(name, Arguments::OneOf(0, vec![libc::PR_SET_NAME as u64])),
    ]
}

/// What the C library asks for in a new thread.
const NEW_THREAD: [Call; 3] = calls![SYS_set_robust_list SYS_rseq SYS_sched_getaffinity];

/// An event loop, and requests to disks.
const LOOP: [Call; 13] = calls![
    SYS_io_uring_enter SYS_epoll_wait SYS_epoll_pwait SYS_epoll_ctl SYS_pread64 SYS_pwrite64 SYS_preadv2 SYS_pwritev2
    SYS_preadv SYS_pwritev SYS_fdatasync SYS_fsync SYS_fallocate
];

/// What a guest's store to a device's register may lead to: vectors armed, registers of a passed-through device, statistics.
const DEVICES: [Call; 4] = calls![SYS_eventfd2 SYS_epoll_ctl SYS_pread64 SYS_pwrite64];

/// Files that the Landlock domain allows.
const FILES: [Call; 16] = calls![
    SYS_openat SYS_newfstatat SYS_fstat SYS_statx SYS_lseek SYS_getdents64 SYS_readlink SYS_readlinkat SYS_linkat
    SYS_rename SYS_renameat SYS_unlink SYS_unlinkat SYS_rmdir SYS_ftruncate SYS_dup
];

/// The control socket's clients.
const SOCKETS: [Call; 5] = calls![SYS_accept4 SYS_recvfrom SYS_setsockopt SYS_getsockopt SYS_shutdown];

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
