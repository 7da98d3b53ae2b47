use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::read_again;
use crate::kvm::{KvmError, Match};

use super::NotifyPath;

/// Counts registrations of doorbells; the number identifies one registration.
static ARMINGS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// [`ARMINGS`] at the end of this thread's last kick by exit.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

// The kinds of match in the low two bits of `Kick::armed`.
const VALUE: u64 = 0;
const LENGTH: u64 = 1;
const ANY: u64 = 2;

/// One queue's kick: the eventfd that every path signals, and counts of kicks by exit. Any thread may use it; no lock.
#[derive(Debug)]
pub(super) struct Kick {
    event: Arc<EventFd>,
    /// What the kernel says of `event`; `None`: there is no /proc.
    info: Option<File>,
    queue: u16,
    /// Number of the present registration times 4, and the kind of its match; 0: none.
    armed: AtomicU64,
    exits: AtomicU64,
    missed: AtomicU64,
    /// Writes to the eventfd by doorbell, not by KVM.
    by_hand: AtomicU64,
}

impl Kick {
    pub(super) fn new(queue: u16) -> Result<Kick, KvmError> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(KvmError::EventFd)?;
        Ok(Kick {
            // Opened now: who wants to read it later may open nothing any more.
            info: File::open(format!("/proc/self/fdinfo/{}", event.as_raw_fd())).ok(),
            event: Arc::new(event),
            queue,
            armed: AtomicU64::new(0),
            exits: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            by_hand: AtomicU64::new(0),
        })
    }

    pub(super) fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    /// What an ioeventfd on this queue's register matches on `path`; `None`: the path has no ioeventfd. With `data`
    /// (NOTIFICATION_DATA) a kick has 32 bits, and half of them differ from kick to kick: no value matches them, only the length.
    pub(super) fn matching(&self, path: NotifyPath, data: bool) -> Option<Match> {
        match path {
            NotifyPath::FastMmio => Some(Match::Any),
            NotifyPath::Mmio | NotifyPath::Pio if data => Some(Match::Length(4)),
            NotifyPath::Mmio | NotifyPath::Pio => Some(Match::Value(2, self.queue.into())),
            NotifyPath::Exit => None,
        }
    }

    /// Records that an ioeventfd catches the kicks from now on.
    pub(super) fn set_armed(&self, matching: Match) {
        // SeqCst: a thread that has seen this number in ARMINGS must also find it here.
        let number = ARMINGS.fetch_add(1, Ordering::SeqCst) + 1;
        let kind = match matching {
            Match::Value(..) => VALUE,
            Match::Length(_) => LENGTH,
            Match::Any => ANY,
        };
        self.armed.store(number << 2 | kind, Ordering::SeqCst);
    }

    /// Records that no ioeventfd catches them from now on.
    pub(super) fn set_disarmed(&self) {
        self.armed.store(0, Ordering::SeqCst);
    }

    /// Signals the eventfd, so that the queue checks its ring.
    pub(super) fn self_kick(&self) {
        // Fails only if the counter would exceed 2^64 - 2; then it is readable already.
        let _ = self.event.write(1);
        self.by_hand.fetch_add(1, Ordering::Relaxed);
    }

    /// Kicks by exit, and how many of these an ioeventfd should have caught.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.exits.load(Ordering::Relaxed), self.missed.load(Ordering::Relaxed))
    }

    /// Kicks by ioeventfd: the eventfd's counter as the kernel shows it (`eventfd-count`, hexadecimal), minus
    /// doorbell's own writes. `None` if there is no /proc. Exact while no kick is on its way.
    pub(super) fn by_ioeventfd(&self) -> Option<u64> {
        let info = read_again(self.info.as_ref()?).ok()?;
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"))?;
        let count = u64::from_str_radix(count.trim(), 16).ok()?;
        Some(count.saturating_sub(self.by_hand.load(Ordering::Relaxed)))
    }

    /// A store to the register that exited to the VMM: signals the eventfd. `direct` is false for a store through the
    /// PCI_CFG window, which no ioeventfd can catch.
    ///
    /// A store may have left the guest just before its doorbell was armed. So it counts as missed only if this vCPU
    /// thread has handled another kick by exit since the registration: then the store was made after it. At most one
    /// missed kick per vCPU and registration goes uncounted, and a kick that was not missed is never counted.
    pub(super) fn by_exit(&self, data: &[u8], direct: bool) {
        self.self_kick();
        self.exits.fetch_add(1, Ordering::Relaxed);
        let armed = self.armed.load(Ordering::SeqCst);
        let number = armed >> 2;
        let caught = match armed & 3 {
            VALUE => data == self.queue.to_le_bytes(),
            LENGTH => data.len() == 4,
            _ => true,
        };
        if direct && caught && number != 0 && number <= SEEN.get() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        SEEN.set(ARMINGS.load(Ordering::SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_the_kicks_that_bypass_the_vmm() {
        let kick = Kick::new(1).unwrap();
        kick.self_kick();
        (0..20).for_each(|_| kick.by_exit(&[1, 0], true));
        assert_eq!((kick.by_ioeventfd(), kick.counts()), (Some(0), (20, 0)));
        // As an ioeventfd does.
        (0..17).for_each(|_| kick.event().write(1).unwrap());
        assert_eq!((kick.by_ioeventfd(), kick.counts()), (Some(17), (20, 0)));
    }
}
