//! The thread of one connection. It sleeps unless something of the following happens.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::Frontend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::dataplane::Interrupt;
use crate::host::thread::{self, OnDeath};
use crate::host::{Locked, log};

/// The call of one queue: how the backend interrupts the guest.
pub(super) struct Call {
    index: usize,
    interrupt: Interrupt,
    /// Called when the backend is gone: the device needs a reset.
    broken: Arc<dyn Fn() + Send + Sync>,
    /// Signalled by the backend where no irqfd can be; read by the thread.
    relay: Arc<EventFd>,
    /// What the backend has.
    given: Mutex<Option<Arc<EventFd>>>,
}

impl Call {
    pub(super) fn new(
        index: usize,
        interrupt: Interrupt,
        broken: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Call> {
        let relay = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        Ok(Call { index, interrupt, broken, relay, given: Mutex::new(None) })
    }

    /// The eventfd that the backend should have now.
    pub(super) fn choose(&self) -> Arc<EventFd> {
        let event = self.interrupt.direct_event().unwrap_or_else(|| self.relay.clone());
        *self.given.locked() = Some(event.clone());
        event
    }

    /// Gives the backend another eventfd if the driver changed the vector, or the way of interrupts was switched.
    fn update(&self, frontend: &Frontend) {
        let old = self.given.locked().clone();
        let new = self.choose();
        if old.is_some_and(|old| Arc::ptr_eq(&old, &new)) {
            return;
        }
        // No reply: it cannot block. A backend that is gone is noticed by its socket.
        let _ = frontend.set_vring_call(self.index, &new);
        // What the backend signalled in between went to the old vector: one interrupt too many is harmless.
        self.interrupt.deliver();
    }
}

#[derive(Default)]
struct State {
    calls: Vec<(Arc<Call>, Frontend)>,
    /// When the reply that somebody waits for is late.
    deadline: Option<Instant>,
    leaving: bool,
}

/// Relays calls, notices the backend's death, and ends requests that get no reply. Its thread ends when it is dropped.
pub(super) struct Watchdog(Arc<Shared>);

struct Shared {
    socket: UnixStream,
    wake: EventFd,
    dead: AtomicBool,
    late: AtomicBool,
    state: Mutex<State>,
}

/// A limit on one request; over when it is dropped.
pub(super) struct Limit<'a>(&'a Shared);

impl Limit<'_> {
    /// Whether the request was ended because of it.
    pub(super) fn expired(&self) -> bool {
        self.0.late.load(Ordering::Acquire)
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        self.0.state.locked().deadline = None;
        let _ = self.0.wake.write(1);
    }
}

impl Watchdog {
    /// Starts the thread for a connection; `socket` is a copy of the connection's.
    ///
    /// # Errors
    /// No descriptor or no thread.
    pub(super) fn start(path: &Path, socket: UnixStream, on_death: OnDeath) -> io::Result<Watchdog> {
        let shared = Arc::new(Shared {
            socket,
            wake: EventFd::new(EFD_NONBLOCK)?,
            dead: AtomicBool::new(false),
            late: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let (name, held) = (path.display().to_string(), shared.clone());
        thread::spawn("vhost-user", on_death, move || {
            while held.turn(&name)? {}
            Ok(())
        })?;
        Ok(Watchdog(shared))
    }

    /// Whether the backend is gone.
    pub(super) fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Acquire)
    }

    /// Serves this queue's call from now on.
    pub(super) fn add(&self, call: Arc<Call>, frontend: Frontend) {
        self.0.state.locked().calls.push((call, frontend));
        self.wake();
    }

    /// No longer serves it.
    pub(super) fn remove(&self, call: &Arc<Call>) {
        self.0.state.locked().calls.retain(|(held, _)| !Arc::ptr_eq(held, call));
    }

    /// Makes the thread look at everything once.
    pub(super) fn wake(&self) {
        let _ = self.0.wake.write(1);
    }

    /// Limits the request that the caller is about to make.
    pub(super) fn limit(&self, reply: Duration) -> Limit<'_> {
        self.0.state.locked().deadline = Some(Instant::now() + reply);
        self.wake();
        Limit(&self.0)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.state.locked().leaving = true;
        self.wake();
    }
}

impl Shared {
    /// Waits and serves; `false`: the thread must end.
    fn turn(&self, name: &str) -> Result<bool, String> {
        let (calls, timeout) = {
            let state = self.state.locked();
            if state.leaving {
                return Ok(false);
            }
            let calls: Vec<Arc<Call>> = state.calls.iter().map(|(call, _)| call.clone()).collect();
            let left = state.deadline.map(|end| end.saturating_duration_since(Instant::now()));
            // Rounded up: not woken a moment too early, again and again.
            (calls, left.map_or(-1, |left| left.as_millis() as i32 + 1))
        };
        let poll = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
        // A socket that is gone stays readable: it is not asked again.
        let socket = if self.dead.load(Ordering::Acquire) { -1 } else { self.socket.as_raw_fd() };
        let mut polls = vec![poll(socket, libc::POLLRDHUP), poll(self.wake.as_raw_fd(), libc::POLLIN)];
        polls.extend(calls.iter().map(|call| poll(call.relay.as_raw_fd(), libc::POLLIN)));
        // SAFETY: valid descriptors, and as many entries as said.
        if unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(true)
            } else {
                Err(error.to_string())
            };
        }
        for (call, poll) in calls.iter().zip(&polls[2..]) {
            if poll.revents != 0 && call.relay.read().is_ok() {
                call.interrupt.deliver();
            }
        }
        if polls[1].revents != 0 {
            let _ = self.wake.read();
            let state = self.state.locked();
            // Not while somebody waits for a reply, who holds the connection: the end of that wakes this thread again.
            if state.deadline.is_none() {
                state.calls.iter().for_each(|(call, frontend)| call.update(frontend));
            }
        }
        if polls[0].revents != 0 {
            self.died(name);
        }
        let late = self.state.locked().deadline.is_some_and(|end| end <= Instant::now());
        if late && !self.late.swap(true, Ordering::AcqRel) {
            // The caller's receive returns.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        Ok(true)
    }

    fn died(&self, name: &str) {
        self.dead.store(true, Ordering::Release);
        let calls: Vec<_> = self.state.locked().calls.iter().map(|(call, _)| call.clone()).collect();
        if !calls.is_empty() {
            let what =
                "the vhost-user backend is gone; when the guest resets the disk, doorbell connects again";
            log::warn(name, format_args!("{what}"));
        }
        for call in calls {
            (call.broken)();
        }
    }
}
