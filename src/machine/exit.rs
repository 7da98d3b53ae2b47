//! How a run ends: the first reason wins, and the main loop hears of it.

use std::io;
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
}

impl ExitLatch {
    /// A latch that nobody has used.
    ///
    /// # Errors
    /// No eventfd to be had.
    pub fn new() -> io::Result<ExitLatch> {
        Ok(ExitLatch(Arc::new(Inner { reason: Mutex::new(None), event: EventFd::new(EFD_NONBLOCK)? })))
    }

    /// Ends the run because of `reason`, unless it is ending already.
    pub fn request(&self, reason: ExitReason) {
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

    /// Readable once there is a reason.
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }
}
