use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::Locked;
use crate::host::thread::{self, OnDeath};
use crate::kvm::KvmError;

type Action = Arc<dyn Fn() + Send + Sync>;

/// Reads the eventfds that the VMM itself serves: those of masked vectors, all of them with `irq=user`, and the host's
/// request to release the device.
///
/// One thread for each device, so that an interrupt through the VMM waits for nothing else. Tests call `turn` instead of
/// starting the thread.
#[derive(Debug)]
pub struct EventfdPoller {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    epoll: Epoll,
    stop: EventFd,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    all: BTreeMap<u64, (Arc<EventFd>, Action)>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} eventfds", self.lock().all.len())
    }
}

/// Polls an eventfd until it is dropped. Its action may still be running after that.
#[derive(Debug)]
pub struct PolledEventfd {
    inner: Arc<Inner>,
    seat: u64,
    event: Arc<EventFd>,
}

/// The token of the eventfd that ends the thread.
const STOP: u64 = u64::MAX;

impl EventfdPoller {
    /// A poller without a thread.
    ///
    /// # Errors
    /// File descriptors ran out.
    pub fn new() -> io::Result<EventfdPoller> {
        let (epoll, stop) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), EpollEvent::new(EventSet::IN, STOP))?;
        Ok(EventfdPoller { inner: Arc::new(Inner { epoll, stop, seats: Mutex::default() }), thread: None })
    }

    /// Starts the thread, with this name (15 characters are shown). Calls `on_death` if it ends by an error or a panic: the
    /// device's interrupts are lost from then on.
    ///
    /// # Errors
    /// The host could not start a thread.
    pub fn start(&mut self, name: &str, on_death: OnDeath) -> io::Result<()> {
        let inner = self.inner.clone();
        let body = move || {
            while inner.turn(-1).map_err(|error| format!("waiting failed: {error}"))? {}
            Ok(())
        };
        self.thread = Some(thread::spawn(name, on_death, body)?);
        Ok(())
    }

    /// Calls `action` whenever `event` has been signalled, after reading it.
    ///
    /// # Errors
    /// The kernel's limit on watches (`fs.epoll.max_user_watches`).
    pub fn watch(
        &self,
        event: Arc<EventFd>,
        action: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, KvmError> {
        let mut seats = self.inner.lock();
        let seat = seats.next;
        let interest = EpollEvent::new(EventSet::IN, seat);
        let added = self.inner.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest);
        added.map_err(KvmError::EventFd)?;
        seats.next += 1;
        seats.all.insert(seat, (event.clone(), Arc::new(action)));
        Ok(PolledEventfd { inner: self.inner.clone(), seat, event })
    }

    /// Serves what has been signalled by now.
    #[cfg(test)]
    pub fn turn(&self) {
        let _ = self.inner.turn(0);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.locked()
    }

    /// Waits and serves; `false`: the thread must end.
    fn turn(&self, timeout: i32) -> io::Result<bool> {
        let mut events = [EpollEvent::default(); 32];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            if event.data() == STOP {
                return Ok(false);
            }
            // Called without the lock: an action may drop a `PolledEventfd`.
            let seat = self.lock().all.get(&event.data()).cloned();
            if let Some((event, action)) = seat
                && event.read().is_ok()
            {
                action();
            }
        }
        Ok(true)
    }
}

impl Drop for PolledEventfd {
    fn drop(&mut self) {
        let _ = self.inner.epoll.ctl(ControlOperation::Delete, self.event.as_raw_fd(), EpollEvent::default());
        self.inner.lock().all.remove(&self.seat);
    }
}

impl Drop for EventfdPoller {
    fn drop(&mut self) {
        let _ = self.inner.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_death_of_its_thread_is_told() {
        let (sender, deaths) = crossbeam_channel::unbounded();
        let mut poller = EventfdPoller::new().unwrap();
        poller.start("vfio test", Arc::new(move |why| sender.send(why).unwrap())).unwrap();
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let _polled = poller.watch(event.clone(), || panic!("this panic belongs to a test")).unwrap();
        event.write(1).unwrap();
        assert!(deaths.recv().unwrap().contains("vfio test"));
    }
}
