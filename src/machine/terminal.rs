//! The user's terminal in raw mode, and back.

use std::io;
use std::mem::zeroed;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What the terminal was before; also reached by the panic hook and the thread that takes signals.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

/// Whose the terminal is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This process is in the foreground.
    Ours,
    /// Another process group is: a read would stop this process, and a change of the mode would be felt by that group.
    Others,
    /// No job control: standard input is not the controlling terminal.
    Nobody,
}

/// Standard input, if it is a terminal. In raw mode keys reach the guest one by one, Ctrl-C included.
///
/// The mode is changed only while this process is in the foreground. The old mode comes back when this is dropped,
/// before a panic is printed, and by [`restore`].
#[derive(Debug)]
pub struct Terminal(());

impl Terminal {
    /// `None` if standard input is no terminal.
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

/// Raw mode, if the terminal is ours and not in it already: a shell that brings a stopped job back resets the mode.
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
    // Output processing stays, so that our own lines end properly too.
    raw.c_oflag |= libc::OPOST;
    let is_raw = (mode.c_iflag, mode.c_lflag, mode.c_cflag) == (raw.c_iflag, raw.c_lflag, raw.c_cflag);
    if is_raw && before.is_some() || ownership() != Ownership::Ours {
        return Ok(());
    }
    *before = Some(mode);
    set(&raw)
}

/// Puts the old mode back, if the terminal is ours; if it is not, its owner has set the mode that it wants.
pub fn restore() {
    // Whoever panics while holding the lock is between two assignments: the value is good.
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
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose the terminal is now.
pub fn ownership() -> Ownership {
    // SAFETY: plain calls on a file descriptor.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(libc::STDIN_FILENO), libc::getpgrp()) };
    match foreground {
        -1 => Ownership::Nobody,
        group if group == own => Ownership::Ours,
        _ => Ownership::Others,
    }
}

/// With SIGTTOU blocked: the terminal may have been taken away since we looked, and the signal would stop all threads.
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
