//! The user's terminal in raw mode, and back.

use std::io;
use std::sync::{Mutex, Once, PoisonError};

/// What the terminal was before; also reached by the panic hook, which must not wait for anybody's drop.
static SAVED: Mutex<Option<libc::termios>> = Mutex::new(None);

/// Standard input in raw mode for as long as this lives: keys reach the guest one by one, Ctrl-C included.
///
/// The old mode comes back when it is dropped and before a panic is printed; signals that end the process are
/// taken by the main loop, which drops it on its way out.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// `None` if standard input is no terminal, or this process is not in its foreground (it would be stopped).
    ///
    /// # Errors
    /// The terminal refused.
    pub fn enter() -> io::Result<Option<RawMode>> {
        static HOOK: Once = Once::new();
        // SAFETY: plain calls on a file descriptor.
        let ours = unsafe {
            libc::isatty(libc::STDIN_FILENO) == 1 && libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp()
        };
        if !ours {
            return Ok(None);
        }
        // SAFETY: a zeroed termios is valid and is overwritten.
        let mut old: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `old` outlives the call.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &mut old) } != 0 {
            return Err(io::Error::last_os_error());
        }
        HOOK.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                print(info);
            }));
        });
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(old);
        let guard = RawMode(());
        let mut raw = old;
        // SAFETY: a valid termios.
        unsafe { libc::cfmakeraw(&mut raw) };
        // Output processing stays, so that our own lines end properly too.
        raw.c_oflag |= libc::OPOST;
        // SAFETY: as above. A failure drops the guard, which restores.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(guard))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // Whoever panics while holding the lock is between two assignments: the value is good.
    if let Some(old) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // SAFETY: a termios that tcgetattr filled.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &old) };
    }
}
