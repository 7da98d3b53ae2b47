use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::EventFd;

use super::sent::InterruptCounts;
use crate::host::Locked;
use crate::host::log;
use crate::kvm::{Level, LevelOutcome, Signalled, Vector};

thread_local! {
    static IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the calling thread is an I/O thread. `auto` uses the irqfd only there.
pub fn in_io_thread() -> bool {
    IO_THREAD.get()
}

/// Marks the calling thread as an I/O thread. The thread calls it once, when it starts.
pub(super) fn enter_io_thread() {
    IO_THREAD.set(true);
}

/// How the device interrupts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CompletePath {
    /// `Irqfd` on an I/O thread, `SignalMsi` on any other. The kind of the completing thread decides, and not the
    /// device's state, which can change between the decision and its use (QEMU's RHEL-15394).
    Auto = 0,
    /// An eventfd bound to a GSI with an MSI route.
    Irqfd = 1,
    /// `KVM_SIGNAL_MSI`.
    SignalMsi = 2,
    /// INTx by `KVM_IRQ_LINE`. The device offers no MSI-X.
    IrqLine = 3,
    /// INTx by a level irqfd with a resamplefd. The device offers no MSI-X.
    Resample = 4,
}

impl CompletePath {
    /// Every path with its name on the command line.
    pub const NAMES: [(&'static str, CompletePath); 5] = [
        ("auto", CompletePath::Auto),
        ("irqfd", CompletePath::Irqfd),
        ("signal-msi", CompletePath::SignalMsi),
        ("irq-line", CompletePath::IrqLine),
        ("resample", CompletePath::Resample),
    ];

    /// Returns whether the path is a level interrupt: INTx instead of MSI-X.
    pub fn is_level(self) -> bool {
        matches!(self, CompletePath::IrqLine | CompletePath::Resample)
    }

    fn from_u8(value: u8) -> CompletePath {
        CompletePath::NAMES
            .iter()
            .map(|&(_, path)| path)
            .find(|&p| p as u8 == value)
            .unwrap_or(CompletePath::Auto)
    }
}

impl fmt::Display for CompletePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = CompletePath::NAMES.iter().find(|(_, path)| path == self);
        f.write_str(found.map_or("?", |(name, _)| name))
    }
}

impl FromStr for CompletePath {
    type Err = ();

    fn from_str(s: &str) -> Result<CompletePath, ()> {
        CompletePath::NAMES.iter().find(|(name, _)| *name == s).map(|&(_, path)| path).ok_or(())
    }
}

/// The value of `queue_msix_vector` and `config_msix_vector` for "no vector" (virtio 1.2, 4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;

/// Bits of the ISR status.
const QUEUE_BIT: u8 = 1;
const CONFIG_BIT: u8 = 2;

/// What [`Interrupt::deliver_by`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Whether `later` took over the write of the eventfd.
    pub queued: bool,
    /// How many system calls this thread made.
    pub calls: u64,
}

/// The interrupts of one device: its vectors, and the path that signals them.
#[derive(Debug)]
pub struct DeviceInterrupts {
    vectors: Vec<Arc<Vector>>,
    path: AtomicU8,
    /// Whether MSI-X is on. While it is off, interrupts are INTx.
    messages: AtomicBool,
    intx: Option<Level>,
    /// The ISR status (virtio 1.2, 4.1.4.5). The lock makes status and pin change together.
    isr: Mutex<u8>,
}

impl DeviceInterrupts {
    /// Creates the interrupts of a device with `vectors`, signalled by `path`. `intx` is used while MSI-X is off.
    pub fn new(vectors: Vec<Arc<Vector>>, intx: Option<Level>, path: CompletePath) -> Arc<DeviceInterrupts> {
        Arc::new(DeviceInterrupts {
            vectors,
            path: AtomicU8::new(path as u8),
            messages: AtomicBool::new(false),
            intx,
            isr: Mutex::new(0),
        })
    }

    /// Returns the MSI-X vectors in the order of the table.
    pub fn vectors(&self) -> &[Arc<Vector>] {
        &self.vectors
    }

    /// Returns the path in use.
    pub fn path(&self) -> CompletePath {
        CompletePath::from_u8(self.path.load(Ordering::Relaxed))
    }

    /// Changes the path of a running device. Requests in flight use the old path or the new one; no interrupt is lost.
    ///
    /// # Errors
    /// The device cannot use the path: a running device cannot change between MSI-X and INTx, and there may be no free
    /// GSI for an irqfd.
    pub fn set_path(&self, path: CompletePath) -> Result<(), String> {
        if path.is_level() || self.path().is_level() {
            return Err(format!("{path}: a live device cannot change between MSI-X and INTx"));
        }
        if path != CompletePath::SignalMsi {
            // Assign the irqfds before the switch, so that a thread that reads the new path finds one.
            for vector in &self.vectors {
                vector.enable_irqfd().map_err(|error| error.to_string())?;
            }
        }
        self.path.store(path as u8, Ordering::Release);
        Ok(())
    }

    /// Applies the guest's settings in config space: whether MSI-X is on, and whether INTx is disabled.
    pub fn configure(&self, messages: bool, intx_disabled: bool) {
        self.messages.store(messages, Ordering::Release);
        if let Some(intx) = &self.intx
            && let Err(error) = intx.enable(!messages && !intx_disabled)
        {
            log::warn("INTx", format_args!("{error}; it goes by KVM_IRQ_LINE"));
        }
    }

    /// Returns the level interrupt, if there is one, so that a loop can watch its resamplefd.
    pub fn intx(&self) -> Option<&Level> {
        self.intx.as_ref()
    }

    fn isr(&self) -> MutexGuard<'_, u8> {
        self.isr.locked()
    }

    /// Returns whether INTx is pending: the Interrupt Status bit of config space.
    pub fn isr_pending(&self) -> bool {
        *self.isr() != 0 && !self.messages.load(Ordering::Acquire)
    }

    /// Returns the ISR status, clears it, and lowers INTx: the effect of a guest's read (virtio 1.2, 4.1.4.5).
    pub fn take_isr(&self) -> u8 {
        let mut isr = self.isr();
        if let Some(intx) = &self.intx {
            intx.set_cause(false);
        }
        std::mem::take(&mut *isr)
    }

    /// Sets a bit of the ISR status and raises INTx.
    fn raise_isr(&self, bit: u8) -> LevelOutcome {
        let mut isr = self.isr();
        *isr |= bit;
        self.intx.as_ref().map(|intx| intx.set_cause(true)).unwrap_or_default()
    }

    /// Returns the interrupt of a queue. It has no vector until [`Interrupt::set_vector`] gives it one.
    pub fn queue_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(QUEUE_BIT)
    }

    /// Returns the interrupt for configuration changes. It has no vector at first.
    pub fn config_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(CONFIG_BIT)
    }

    fn interrupt(self: &Arc<Self>, isr_bit: u8) -> Interrupt {
        Interrupt {
            device: self.clone(),
            vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            isr_bit,
            counts: Arc::default(),
        }
    }
}

/// The interrupt of a queue or of the configuration. Clones share the vector number, so the transport may change it
/// while an I/O thread sends interrupts.
#[derive(Clone, Debug)]
pub struct Interrupt {
    device: Arc<DeviceInterrupts>,
    vector: Arc<AtomicU16>,
    isr_bit: u8,
    counts: Arc<InterruptCounts>,
}

impl Interrupt {
    /// Selects the table entry. Returns the number in use, [`NO_VECTOR`] if there is no such entry (virtio 1.2,
    /// 4.1.5.1.2.1: the driver reads NO_VECTOR back if the device cannot map the vector).
    pub fn set_vector(&self, vector: u16) -> u16 {
        let kept = if usize::from(vector) < self.device.vectors.len() { vector } else { NO_VECTOR };
        self.vector.store(kept, Ordering::Release);
        kept
    }

    /// Returns the number of the table entry in use.
    pub fn vector(&self) -> u16 {
        self.vector.load(Ordering::Acquire)
    }

    /// Returns the eventfd that another process may signal instead of a call of [`Interrupt::deliver`]. An irqfd takes
    /// the signal or, while the vector is masked, the eventfd's counter is the pending bit. `None`: each interrupt must
    /// go through `deliver`.
    pub fn direct_event(&self) -> Option<Arc<EventFd>> {
        let by_irqfd = matches!(self.device.path(), CompletePath::Auto | CompletePath::Irqfd);
        let vector = self.device.vectors.get(usize::from(self.vector()))?;
        let direct = by_irqfd && self.device.messages.load(Ordering::Acquire) && vector.via_irqfd();
        direct.then(|| vector.event().clone())
    }

    /// Returns how many interrupts were sent, by path.
    pub fn counts(&self) -> &InterruptCounts {
        &self.counts
    }

    /// Interrupts the guest at once, with at most one system call.
    pub fn deliver(&self) {
        self.deliver_by(&mut |_| false);
    }

    /// Delivers what `later` wrote after the vector had lost its irqfd. Returns how many system calls it made: none if the
    /// vector has its irqfd, as always unless KVM refused it one.
    pub(super) fn deliver_stranded(&self) -> u64 {
        let by_irqfd = matches!(self.device.path(), CompletePath::Auto | CompletePath::Irqfd);
        let vector = self.device.vectors.get(usize::from(self.vector())).filter(|_| by_irqfd);
        vector.filter(|vector| !vector.via_irqfd()).map_or(0, |vector| vector.deliver_stranded())
    }

    /// Interrupts the guest. This is the only function that chooses how. If the choice is an irqfd, it offers the write
    /// of the eventfd to `later`, which returns whether it takes the write over. `later` must make the write before the
    /// thread sleeps or polls.
    pub(super) fn deliver_by(&self, later: &mut dyn FnMut(RawFd) -> bool) -> Delivery {
        let counts = &*self.counts;
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        if !self.device.messages.load(Ordering::Acquire) {
            // Without MSI-X there is one pin for all sources: the ISR status says which of them has cause.
            let outcome = self.device.raise_isr(self.isr_bit);
            count(if outcome.notified { &counts.intx } else { &counts.no_vector });
            return Delivery { queued: false, calls: outcome.calls };
        }
        if self.isr_bit == CONFIG_BIT {
            // Set the bit even with MSI-X, and before the message is sent (virtio 1.2, 4.1.4.5.1).
            *self.device.isr() |= CONFIG_BIT;
        }
        let Some(vector) = self.device.vectors.get(usize::from(self.vector())) else {
            count(&counts.no_vector);
            return Delivery::default();
        };
        // Read the path once: `set_path` may change it at any time. The eventfd takes no lock, and `later` can make its
        // write a part of the thread's next wait, so `auto` uses it on an I/O thread. Other threads have no such wait:
        // they send the message, which needs no GSI, under the vector's lock.
        let by_irqfd = match self.device.path() {
            CompletePath::Auto => in_io_thread(),
            CompletePath::Irqfd => true,
            // The level paths are for completeness: a device with one of them offers no MSI-X.
            CompletePath::SignalMsi | CompletePath::IrqLine | CompletePath::Resample => false,
        };
        // Count before the guest can see the interrupt: a reader that runs after the guest's handler must find it. A
        // vector without an irqfd (no free GSI, or KVM refused) falls through to the message.
        if by_irqfd && vector.via_irqfd() {
            count(&counts.irqfd);
            let queued = later(vector.event().as_raw_fd());
            if !queued {
                vector.signal_irqfd();
            }
            return Delivery { queued, calls: u64::from(!queued) };
        }
        count(&counts.signal_msi);
        // Only this call knows whether the vector was masked or refused, so the count is corrected afterwards.
        let instead = match vector.signal_msi() {
            Signalled::Delivered => return Delivery { queued: false, calls: 1 },
            Signalled::Pending => &counts.pending,
            Signalled::Refused => &counts.refused,
        };
        counts.signal_msi.fetch_sub(1, Ordering::Relaxed);
        count(instead);
        Delivery { queued: false, calls: 1 }
    }
}
