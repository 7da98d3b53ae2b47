//! How a run ends: the first reason wins, and the main loop hears of it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::thread::OnDeath;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest turned the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// The guest wrote the status of its run to the debug exit port.
    Status(u8),
    /// The guest's kernel panicked and said so (pvpanic).
    Panicked,
    /// The user typed Ctrl-A x.
    Quit,
    /// A signal asked the process to end.
    Signal(i32),
    /// The VMM asked for it ([`ExitLatch::request`] by a bench).
    Stopped,
    /// The guest cannot go on: one sentence.
    Crash(String),
    /// The VMM cannot go on, because one of its threads died: one sentence.
    Failed(String),
    /// The host refused what the guest cannot do without: one sentence.
    Host(String),
}

impl ExitReason {
    /// The sentence of an end that nobody asked for.
    pub fn why(&self) -> Option<&str> {
        match self {
            ExitReason::Crash(why) | ExitReason::Failed(why) | ExitReason::Host(why) => Some(why),
            ExitReason::Panicked => Some("the guest's kernel panicked"),
            _ => None,
        }
    }
}

/// Where any thread says that the run is over.
#[derive(Clone, Debug)]
pub struct ExitLatch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Mutex<Option<ExitReason>>,
    event: EventFd,
    /// Somebody wants the end now, and no waiting for readers of the console.
    urgent: EventFd,
    /// The main loop has begun: it listens to `event`.
    running: AtomicBool,
}

impl ExitLatch {
    /// A latch that nobody has used.
    ///
    /// # Errors
    /// The host could not make an eventfd.
    pub fn new() -> io::Result<ExitLatch> {
        let event = || EventFd::new(EFD_NONBLOCK);
        let (reason, running) = (Mutex::new(None), AtomicBool::new(false));
        Ok(ExitLatch(Arc::new(Inner { reason, event: event()?, urgent: event()?, running })))
    }

    /// Ends the run because of `reason`, unless it is ending already.
    pub fn request(&self, reason: ExitReason) {
        if matches!(reason, ExitReason::Quit | ExitReason::Signal(_) | ExitReason::Stopped) {
            let _ = self.0.urgent.write(1);
        }
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        let _ = self.0.event.write(1);
    }

    /// Ends the run when a thread dies.
    pub fn on_death(&self) -> OnDeath {
        let exit = self.clone();
        Arc::new(move |why| exit.request(ExitReason::Failed(why)))
    }

    /// The first reason.
    pub fn reason(&self) -> Option<ExitReason> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The run is to end at once, without waiting for a reader of the console.
    pub fn is_urgent(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.0.urgent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut fd, 1, 0) == 1 }
    }

    /// Readable once [`ExitLatch::is_urgent`] is true.
    pub fn urgent_event(&self) -> &EventFd {
        &self.0.urgent
    }

    /// The main loop runs, or has run: a request is heard.
    pub fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Acquire)
    }

    pub(super) fn set_running(&self) {
        self.0.running.store(true, Ordering::Release);
    }

    /// Readable once there is a reason.
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }
}
