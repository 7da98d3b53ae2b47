//! What happens when a thread makes a system call that its filter forbids: one line, and the end of the process.

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::signal::register_signal_handler;

use super::Call;
use super::filter::calls;
use crate::host::thread;

/// Exit code of a process that a filter ended.
pub const EXIT_CODE: u8 = 7;

/// SYS_SECCOMP of <asm-generic/siginfo.h>.
const BY_FILTER: i32 = 1;

static HOOK: OnceLock<fn()> = OnceLock::new();

/// Calls `restore` before the process ends. It runs in a signal handler: it may make only async-signal-safe calls, and only
/// system calls that every thread may make.
pub fn on_violation(restore: fn()) {
    let _ = HOOK.set(restore);
}

/// Takes the signal of the filters from now on.
pub(super) fn watch() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, ended).map_err(Into::into)
}

extern "C" fn ended(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: SA_SIGINFO: both are valid. The number is the `int` after the pointer in `_sigsys` (sigaction(2)).
    let (code, number) = unsafe { ((*info).si_code, *info.cast::<u8>().add(24).cast::<i32>()) };
    if code == BY_FILTER {
        // SAFETY: as above.
        let request =
            unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RSI as usize] };
        let mut line = Line { bytes: [0; 256], len: 0 };
        thread::with_name(|name| line.add(&[b"doorbell: thread ", name]));
        line.add(&[b" made a system call that its sandbox forbids: "]);
        match name(number.into()) {
            Some(name) => line.add(&[name.as_bytes()]),
            None => line.number(number as u64, 10),
        }
        if i64::from(number) == libc::SYS_ioctl {
            line.add(&[b" 0x"]);
            line.number(request as u32 as u64, 16);
        }
        line.add(&[b"; the process ends. --sandbox=log lets it go on and logs such calls\n"]);
        line.say();
    }
    if let Some(restore) = HOOK.get() {
        restore();
    }
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(EXIT_CODE.into()) };
}

fn name(number: i64) -> Option<&'static str> {
    KNOWN.iter().find(|call| call.number == number).map(Call::name)
}

/// A line that needs no memory.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Line {
    fn add(&mut self, parts: &[&[u8]]) {
        for &byte in parts.iter().copied().flatten() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut number: u64, base: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
            if number == 0 {
                return self.add(&[&digits[at..]]);
            }
        }
    }

    /// On standard error, if it takes it at once.
    fn say(&self) {
        let mut room = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid pollfd; a buffer of the length said.
        unsafe {
            if libc::poll(&mut room, 1, 0) == 1 {
                libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len);
            }
        }
    }
}

/// System calls that the message names; it shows others by number.
const KNOWN: [Call; 84] = calls![
    SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect
    SYS_munmap SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_access SYS_pipe SYS_dup SYS_dup2
    SYS_socket SYS_connect SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_bind SYS_listen
    SYS_setsockopt SYS_getsockopt SYS_clone SYS_fork SYS_vfork SYS_execve SYS_kill SYS_fcntl SYS_fsync SYS_fdatasync
    SYS_ftruncate SYS_rename SYS_mkdir SYS_rmdir SYS_unlink SYS_readlink SYS_ptrace SYS_setuid SYS_prctl
    SYS_arch_prctl SYS_prlimit64 SYS_mount SYS_reboot SYS_init_module SYS_getdents64 SYS_sched_setaffinity
    SYS_sched_getaffinity SYS_openat SYS_newfstatat SYS_unlinkat SYS_linkat SYS_fallocate SYS_accept4 SYS_eventfd2
    SYS_epoll_create1 SYS_pipe2 SYS_perf_event_open SYS_process_vm_readv SYS_memfd_create SYS_bpf SYS_execveat
    SYS_statx SYS_io_uring_setup SYS_clone3 SYS_timerfd_create SYS_timerfd_settime SYS_signalfd4 SYS_epoll_ctl SYS_flock
    SYS_mlock SYS_msync SYS_mincore SYS_io_uring_enter SYS_pwritev2
];
