use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::sent::InterruptCounts;
use crate::host::log;
use crate::kvm::{Level, LevelOutcome, Signalled, Vector};

thread_local! {
    static IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is an I/O thread. `auto` completes through an irqfd only there.
pub fn in_io_thread() -> bool {
    IO_THREAD.get()
}

/// Declares the calling thread an I/O thread; called once, by the thread itself, when it starts.
pub(super) fn enter_io_thread() {
    IO_THREAD.set(true);
}

/// How the host interrupts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CompletePath {
    /// `Irqfd` on an I/O thread, `SignalMsi` elsewhere: decided by the thread that completes, never by the device's
    /// state, which can change between the decision and its use (QEMU's RHEL-15394).
    Auto = 0,
    /// An eventfd bound to a GSI with an MSI route.
    Irqfd = 1,
    /// `KVM_SIGNAL_MSI`.
    SignalMsi = 2,
    /// INTx by `KVM_IRQ_LINE`; the device offers no MSI-X.
    IrqLine = 3,
    /// INTx by a level irqfd with a resamplefd; the device offers no MSI-X.
    Resample = 4,
}

impl CompletePath {
    /// Every path by its name on the command line.
    pub const NAMES: [(&'static str, CompletePath); 5] = [
        ("auto", CompletePath::Auto),
        ("irqfd", CompletePath::Irqfd),
        ("signal-msi", CompletePath::SignalMsi),
        ("irq-line", CompletePath::IrqLine),
        ("resample", CompletePath::Resample),
    ];

    /// Whether the path is a level interrupt: INTx instead of MSI-X.
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

/// "No vector" in `queue_msix_vector` and `config_msix_vector` (virtio 1.2, 4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;

/// Bits of the ISR status.
const QUEUE_BIT: u8 = 1;
const CONFIG_BIT: u8 = 2;

/// What [`Interrupt::deliver_by`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// `later` took the eventfd's write over.
    pub queued: bool,
    /// System calls made by this thread.
    pub calls: u64,
}

/// The interrupt lines of one device: its vectors and the path they are signalled by.
#[derive(Debug)]
pub struct DeviceInterrupts {
    vectors: Vec<Arc<Vector>>,
    path: AtomicU8,
    /// Whether MSI-X is on; without it interrupts are INTx.
    messages: AtomicBool,
    intx: Option<Level>,
    /// Virtio's ISR status (virtio 1.2, 4.1.4.5). Locked so that status and line change together.
    isr: Mutex<u8>,
}

impl DeviceInterrupts {
    /// Lines over `vectors`, signalled by `path`; `intx` is used as long as MSI-X is off.
    pub fn new(vectors: Vec<Arc<Vector>>, intx: Option<Level>, path: CompletePath) -> Arc<DeviceInterrupts> {
        Arc::new(DeviceInterrupts {
            vectors,
            path: AtomicU8::new(path as u8),
            messages: AtomicBool::new(false),
            intx,
            isr: Mutex::new(0),
        })
    }

    /// The MSI-X vectors, by table index.
    pub fn vectors(&self) -> &[Arc<Vector>] {
        &self.vectors
    }

    /// The path in force.
    pub fn path(&self) -> CompletePath {
        CompletePath::from_u8(self.path.load(Ordering::Relaxed))
    }

    /// Changes the path of a live device; requests in flight complete by the old one or the new one, none is lost.
    ///
    /// # Errors
    /// The path cannot be switched to: level paths are for devices that were made with them, and irqfds may be
    /// exhausted.
    pub fn set_path(&self, path: CompletePath) -> Result<(), String> {
        if path.is_level() || self.path().is_level() {
            return Err(format!("{path}: a live device cannot change between MSI-X and INTx"));
        }
        if path != CompletePath::SignalMsi {
            // Before the switch: whoever reads the new path finds an irqfd.
            for vector in &self.vectors {
                vector.enable_irqfd().map_err(|error| error.to_string())?;
            }
        }
        self.path.store(path as u8, Ordering::Release);
        Ok(())
    }

    /// The guest switched MSI-X or INTx on or off in config space.
    pub fn configure(&self, messages: bool, intx_disabled: bool) {
        self.messages.store(messages, Ordering::Release);
        if let Some(intx) = &self.intx
            && let Err(error) = intx.enable(!messages && !intx_disabled)
        {
            log::warn("INTx", format_args!("{error}; it goes by KVM_IRQ_LINE"));
        }
    }

    /// The level interrupt, for whoever watches its resamplefd.
    pub fn intx(&self) -> Option<&Level> {
        self.intx.as_ref()
    }

    fn isr(&self) -> MutexGuard<'_, u8> {
        self.isr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether INTx is pending: the Interrupt Status bit of config space.
    pub fn isr_pending(&self) -> bool {
        *self.isr() != 0 && !self.messages.load(Ordering::Acquire)
    }

    /// Reads and clears the ISR status and lowers INTx, as a guest's read of it does.
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

    /// The queue interrupt that uses table entry `vector`, or none.
    pub fn queue_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(QUEUE_BIT)
    }

    /// The configuration-change interrupt.
    pub fn config_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(CONFIG_BIT)
    }

    fn interrupt(self: &Arc<Self>, isr_bit: u8) -> Interrupt {
        Interrupt {
            lines: self.clone(),
            vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            isr_bit,
            counts: Arc::default(),
        }
    }
}

/// One source of interrupts, a queue or the configuration, and where they go. Clones share the vector number, so the
/// transport may change it while an I/O thread rings.
#[derive(Clone, Debug)]
pub struct Interrupt {
    lines: Arc<DeviceInterrupts>,
    vector: Arc<AtomicU16>,
    isr_bit: u8,
    counts: Arc<InterruptCounts>,
}

impl Interrupt {
    /// Points the source at a table entry; answers the number in force, [`NO_VECTOR`] if there is no such entry
    /// (virtio 1.2, 4.1.5.1.2.1: a device that cannot map the vector reads back NO_VECTOR).
    pub fn set_vector(&self, vector: u16) -> u16 {
        let kept = if usize::from(vector) < self.lines.vectors.len() { vector } else { NO_VECTOR };
        self.vector.store(kept, Ordering::Release);
        kept
    }

    /// The table entry in force.
    pub fn vector(&self) -> u16 {
        self.vector.load(Ordering::Acquire)
    }

    /// The eventfd that a process elsewhere may signal instead of [`Interrupt::deliver`], because an irqfd takes it or, while
    /// the vector is masked, its counter is the pending bit. `None`: each interrupt must come through `deliver`.
    pub fn direct_event(&self) -> Option<Arc<EventFd>> {
        let by_irqfd = matches!(self.lines.path(), CompletePath::Auto | CompletePath::Irqfd);
        let vector = self.lines.vectors.get(usize::from(self.vector()))?;
        let direct = by_irqfd && self.lines.messages.load(Ordering::Acquire) && vector.via_irqfd();
        direct.then(|| vector.event().clone())
    }

    /// What was sent so far.
    pub fn counts(&self) -> &InterruptCounts {
        &self.counts
    }

    /// Rings the guest at once. At most one system call.
    pub fn deliver(&self) {
        self.deliver_by(&mut |_| false);
    }

    /// Rings the guest: the only function that chooses how. If that is an irqfd, `later` is offered the write of its
    /// eventfd: it answers whether it took that over, to be made before the thread sleeps or polls.
    pub(super) fn deliver_by(&self, later: &mut dyn FnMut(RawFd) -> bool) -> Delivery {
        let counts = &*self.counts;
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        if !self.lines.messages.load(Ordering::Acquire) {
            let told = self.lines.raise_isr(self.isr_bit);
            count(if told.notified { &counts.intx } else { &counts.no_vector });
            return Delivery { queued: false, calls: told.calls };
        }
        if self.isr_bit == CONFIG_BIT {
            // With MSI-X too, and before the message (virtio 1.2, 4.1.4.5.1).
            *self.lines.isr() |= CONFIG_BIT;
        }
        let Some(vector) = self.lines.vectors.get(usize::from(self.vector())) else {
            count(&counts.no_vector);
            return Delivery::default();
        };
        let by_irqfd = match self.lines.path() {
            CompletePath::Auto => in_io_thread(),
            CompletePath::Irqfd => true,
            // With MSI-X on, a level path cannot be meant: such devices offer none.
            CompletePath::SignalMsi | CompletePath::IrqLine | CompletePath::Resample => false,
        };
        // Counted before the guest can know: whoever counts after the guest's handler ran must find it.
        if by_irqfd && vector.via_irqfd() {
            count(&counts.irqfd);
            let queued = later(vector.event().as_raw_fd());
            if !queued {
                vector.signal_irqfd();
            }
            return Delivery { queued, calls: u64::from(!queued) };
        }
        count(&counts.signal_msi);
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
