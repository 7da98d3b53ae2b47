//! The end of a run: the first reason is kept, and the main loop is woken.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::Locked;
use crate::host::thread::OnDeath;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// The guest wrote the status of its run to the debug exit port.
    Status(u8),
    /// The guest's kernel reported a panic (pvpanic).
    Panicked,
    /// The user typed Ctrl-A x.
    Quit,
    /// A signal asked the process to end.
    Signal(i32),
    /// The VMM ended the run ([`ExitLatch::request`] by a bench).
    Stopped,
    /// The guest cannot continue: one sentence.
    Crash(String),
    /// The VMM cannot continue, because one of its threads failed: one sentence.
    Failed(String),
    /// The host refused something that the guest needs: one sentence.
    Host(String),
}

impl ExitReason {
    /// Returns a sentence if the end is an error, and `None` if the guest or the user requested it.
    pub fn why(&self) -> Option<&str> {
        match self {
            ExitReason::Crash(why) | ExitReason::Failed(why) | ExitReason::Host(why) => Some(why),
            ExitReason::Panicked => Some("the guest's kernel panicked"),
            _ => None,
        }
    }
}

/// Lets any thread end the run.
#[derive(Clone, Debug)]
pub struct ExitLatch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Mutex<Option<ExitReason>>,
    event: EventFd,
    /// Signalled when the run must end at once, without waiting for readers of the console.
    urgent: EventFd,
    /// Whether the main loop has started, so that it reacts to `event`.
    running: AtomicBool,
}

impl ExitLatch {
    /// Returns a latch without a reason.
    ///
    /// # Errors
    /// The host cannot create an eventfd.
    pub fn new() -> io::Result<ExitLatch> {
        let event = || EventFd::new(EFD_NONBLOCK);
        let (reason, running) = (Mutex::new(None), AtomicBool::new(false));
        Ok(ExitLatch(Arc::new(Inner { reason, event: event()?, urgent: event()?, running })))
    }

    /// Ends the run because of `reason`. If the run is ending already, the first reason stays.
    pub fn request(&self, reason: ExitReason) {
        tracing::info!(target: "machine", ?reason, "end of the run");
        if matches!(reason, ExitReason::Quit | ExitReason::Signal(_) | ExitReason::Stopped) {
            let _ = self.0.urgent.write(1);
        }
        self.0.reason.locked().get_or_insert(reason);
        let _ = self.0.event.write(1);
    }

    /// Returns a callback that ends the run when a thread fails.
    pub fn on_death(&self) -> OnDeath {
        let exit = self.clone();
        Arc::new(move |why| exit.request(ExitReason::Failed(why)))
    }

    /// Returns the first reason, or `None` while the run goes on.
    pub fn reason(&self) -> Option<ExitReason> {
        self.0.reason.locked().clone()
    }

    /// Returns whether the run must end at once, without waiting for a reader of the console.
    pub fn is_urgent(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.0.urgent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut fd, 1, 0) == 1 }
    }

    /// Returns an eventfd that is readable once [`ExitLatch::is_urgent`] is true.
    pub fn urgent_event(&self) -> &EventFd {
        &self.0.urgent
    }

    /// Returns whether the main loop has started, so that it reacts to a request.
    pub fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Acquire)
    }

    pub(super) fn set_running(&self) {
        self.0.running.store(true, Ordering::Release);
    }

    /// Returns an eventfd that is readable once there is a reason.
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }
}
