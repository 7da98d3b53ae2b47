//! The signals that end, stop and continue a process. One thread takes them, from the program's start on.
//!
//! While no listener is set, and when a signal comes a second time, they end the process at once: the terminal is
//! restored and no half-written file is left. A signal that was ignored when the process started (`nohup`, `trap ''`)
//! stays ignored.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Failure;
use crate::host::Locked;
use crate::host::{cleanup, log, thread};
use crate::machine::terminal;

/// Signals that ask a process to end.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// A session that closes sends two signals at once. Only a signal that comes later counts as a second one.
const SECOND: Duration = Duration::from_millis(500);

/// Called with the signal. Returns whether the listener will end the process; if not, it ends at once.
type Listener = Box<dyn Fn(i32) -> bool + Send>;

/// The thread that takes the signals, and its listeners.
pub(super) struct Signals(Arc<Mutex<Listeners>>);

#[derive(Default)]
struct Listeners {
    ending: Option<Listener>,
    continued: Option<Box<dyn Fn() + Send>>,
    first: Option<Instant>,
}

impl Signals {
    /// Takes the signals from now on. Call it before any other thread is started, because threads inherit the mask.
    pub(super) fn take() -> Result<Signals, Failure> {
        let fail = |e: io::Error| Failure::host(format!("signalfd failed: {e}"));
        let taken: Vec<_> =
            ENDING.into_iter().chain([libc::SIGTSTP]).filter(|&signal| !is_ignored(signal)).collect();
        let fd = block(&[&taken[..], &[libc::SIGCONT]].concat(), &[libc::SIGTTIN]).map_err(fail)?;
        let listeners = Arc::<Mutex<Listeners>>::default();
        let ours = listeners.clone();
        let on_death = Arc::new(|why| {
            log::say(format_args!("doorbell: {why}"));
            end_now(1)
        });
        let body = move || loop {
            let mut info = [0; size_of::<libc::signalfd_siginfo>()];
            match io::Read::read(&mut &fd, &mut info) {
                // The first field, ssi_signo, is the signal's number.
                Ok(4..) => heard(&ours, i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
                Ok(_) => return Err("signalfd reached its end".into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        };
        thread::spawn("signals", on_death, body).map_err(fail)?;
        Ok(Signals(listeners))
    }

    /// Calls `listener` from now on when a signal asks to end.
    pub(super) fn on_end(&self, listener: impl Fn(i32) -> bool + Send + 'static) {
        lock(&self.0).ending = Some(Box::new(listener));
    }

    /// Calls `listener` from now on when the process continues after a stop.
    pub(super) fn on_continue(&self, listener: impl Fn() + Send + 'static) {
        lock(&self.0).continued = Some(Box::new(listener));
    }
}

fn lock(listeners: &Mutex<Listeners>) -> MutexGuard<'_, Listeners> {
    listeners.locked()
}

fn heard(listeners: &Mutex<Listeners>, signal: i32) {
    let mut listeners = lock(listeners);
    match signal {
        libc::SIGTSTP => stop(),
        libc::SIGCONT => {
            if let Some(continued) = &listeners.continued {
                continued();
            }
        }
        _ => {
            let second = listeners.first.is_some_and(|first| first.elapsed() > SECOND);
            listeners.first.get_or_insert_with(Instant::now);
            let told = !second && listeners.ending.as_ref().is_some_and(|ending| ending(signal));
            if !told {
                end_now(128 + signal);
            }
        }
    }
}

/// Ends the process with `code`, without waiting for any other thread.
fn end_now(code: i32) {
    terminal::restore();
    cleanup::remove_all();
    log::finish();
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) };
}

/// Stops the process as SIGTSTP does by default, with the terminal as the shell expects it. Returns when it continues.
fn stop() {
    terminal::restore();
    // SAFETY: the set is initialized before it is used. The pending signal is delivered when this thread unblocks it.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTSTP);
        libc::kill(libc::getpid(), libc::SIGTSTP);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, null_mut());
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: a zeroed sigaction is valid; the call only fills it.
    unsafe {
        let mut now: libc::sigaction = zeroed();
        libc::sigaction(signal, null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Blocks `taken` and `others`; returns a signalfd from which `taken` can be read.
fn block(taken: &[i32], others: &[i32]) -> io::Result<std::fs::File> {
    // SAFETY: the sets are initialized before they are used; the descriptor is checked and owned here.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        taken.iter().for_each(|&signal| _ = libc::sigaddset(&mut set, signal));
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        // A background process that reads the terminal then gets an error; it is not stopped with all its threads.
        others.iter().for_each(|&signal| _ = libc::sigaddset(&mut set, signal));
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, null_mut()) {
            0 => Ok(fd.into()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Ignores SIGXFSZ: a write beyond the limit of file sizes (`ulimit -f`) then fails with EFBIG.
pub(super) fn ignore_file_size_signal() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
