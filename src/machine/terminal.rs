//! Puts the user's terminal into raw mode and restores it.

use crate::host::Locked;
use std::io;
use std::mem::zeroed;
use std::sync::{Mutex, MutexGuard, Once};

/// The mode of the terminal before raw mode. The panic hook and the signal thread use it too.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

/// Which process group owns the terminal now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This process group is in the foreground.
    Ours,
    /// Another process group is. A read would stop this process, and a change of the mode would affect that group.
    Others,
    /// There is no job control: standard input is not the controlling terminal.
    Nobody,
}

/// Standard input as a terminal. In raw mode, keys reach the guest one by one, including Ctrl-C.
///
/// The mode is changed only while this process is in the foreground. Dropping this restores the old mode; so do the
/// panic hook, before it prints, and [`restore`].
#[derive(Debug)]
pub struct Terminal(());

impl Terminal {
    /// Returns `None` if standard input is not a terminal.
    pub fn of_stdin() -> Option<Terminal> {
        static HOOK: Once = Once::new();
        // SAFETY: a plain call on a file descriptor.
        if unsafe { libc::isatty(libc::STDIN_FILENO) } != 1 {
            return None;
        }
        HOOK.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                print(info);
            }));
        });
        Some(Terminal(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Sets raw mode, if the terminal is ours and not raw already. A shell that continues a stopped job resets the mode.
///
/// # Errors
/// The terminal refused.
pub fn make_raw() -> io::Result<()> {
    let mut before = before();
    // SAFETY: a zeroed termios is valid and is overwritten.
    let mut mode: libc::termios = unsafe { zeroed() };
    // SAFETY: `mode` outlives the call.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &mut mode) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut raw = mode;
    // SAFETY: a valid termios.
    unsafe { libc::cfmakeraw(&mut raw) };
    // Output processing stays on, so that our messages get proper line ends.
    raw.c_oflag |= libc::OPOST;
    let is_raw = (mode.c_iflag, mode.c_lflag, mode.c_cflag) == (raw.c_iflag, raw.c_lflag, raw.c_cflag);
    if is_raw && before.is_some() || ownership() != Ownership::Ours {
        return Ok(());
    }
    *before = Some(mode);
    set(&raw)
}

/// Restores the old mode if the terminal is ours. If it is not, its owner has set the mode that it needs.
pub fn restore() {
    // A thread that panics with the lock leaves a complete value.
    let before = before();
    if let Some(mode) = &*before
        && ownership() == Ownership::Ours
    {
        let _ = set(mode);
    }
}

/// As [`restore`], for a signal handler: does nothing if a thread is just changing the mode.
pub fn restore_if_free() {
    if let Ok(before) = BEFORE.try_lock()
        && let Some(mode) = &*before
        && ownership() == Ownership::Ours
    {
        let _ = set(mode);
    }
}

fn before() -> MutexGuard<'static, Option<libc::termios>> {
    BEFORE.locked()
}

/// Returns which process group owns the terminal now.
pub fn ownership() -> Ownership {
    // SAFETY: plain calls on a file descriptor.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(libc::STDIN_FILENO), libc::getpgrp()) };
    match foreground {
        -1 => Ownership::Nobody,
        group if group == own => Ownership::Ours,
        _ => Ownership::Others,
    }
}

/// Sets the mode with SIGTTOU blocked. Another job may have taken the terminal since the check, and the signal would
/// stop all threads.
fn set(mode: &libc::termios) -> io::Result<()> {
    // SAFETY: both sets are initialized before they are used; `mode` is a valid termios.
    unsafe {
        let (mut block, mut old): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
        libc::sigemptyset(&mut block);
        libc::sigaddset(&mut block, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &block, &mut old);
        let done = libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, mode);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        if done == 0 { Ok(()) } else { Err(error) }
    }
}
