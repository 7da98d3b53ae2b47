use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use crate::kvm::{Signalled, Vector};

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

/// How the host rings back.
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
}

impl CompletePath {
    /// Every path by its name on the command line.
    pub const NAMES: [(&'static str, CompletePath); 3] = [
        ("auto", CompletePath::Auto),
        ("irqfd", CompletePath::Irqfd),
        ("signal-msi", CompletePath::SignalMsi),
    ];

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

/// Interrupts sent for one source, by path. A cache line of its own: sources ring from different threads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct InterruptCounts {
    /// Written to an irqfd's eventfd.
    pub irqfd: AtomicU64,
    /// Sent by KVM_SIGNAL_MSI.
    pub signal_msi: AtomicU64,
    /// Made pending by a message while masked.
    pub pending: AtomicU64,
    /// KVM found no CPU for the message.
    pub refused: AtomicU64,
    /// The driver had set no vector.
    pub no_vector: AtomicU64,
}

/// The interrupt lines of one device: its vectors and the path they are rung by.
#[derive(Debug)]
pub struct InterruptLines {
    vectors: Vec<Arc<Vector>>,
    path: AtomicU8,
    /// Whether MSI-X is on; without it only the ISR status is set.
    messages: AtomicBool,
    /// Virtio's ISR status: bit 0 a queue, bit 1 the configuration (virtio 1.2, 4.1.4.5).
    isr: AtomicU8,
}

impl InterruptLines {
    /// Lines over `vectors`, rung by `path`.
    pub fn new(vectors: Vec<Arc<Vector>>, path: CompletePath) -> Arc<InterruptLines> {
        Arc::new(InterruptLines {
            vectors,
            path: AtomicU8::new(path as u8),
            messages: AtomicBool::new(false),
            isr: AtomicU8::new(0),
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

    /// Tells whether the guest has MSI-X switched on.
    pub fn set_messages(&self, on: bool) {
        self.messages.store(on, Ordering::Release);
    }

    /// Reads and clears the ISR status, as a guest's read of it does.
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// The queue interrupt that uses table entry `vector`, or none.
    pub fn queue_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(1)
    }

    /// The configuration-change interrupt.
    pub fn config_interrupt(self: &Arc<Self>) -> Interrupt {
        self.interrupt(2)
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
    lines: Arc<InterruptLines>,
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

    /// What was sent so far.
    pub fn counts(&self) -> &InterruptCounts {
        &self.counts
    }

    /// Rings the guest: the only function that chooses how. At most one system call.
    pub fn deliver(&self) {
        let counts = &*self.counts;
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        if !self.lines.messages.load(Ordering::Acquire) {
            self.lines.isr.fetch_or(self.isr_bit, Ordering::AcqRel);
            return count(&counts.no_vector);
        }
        let Some(vector) = self.lines.vectors.get(usize::from(self.vector())) else {
            return count(&counts.no_vector);
        };
        let by_irqfd = match self.lines.path() {
            CompletePath::Auto => in_io_thread(),
            CompletePath::Irqfd => true,
            CompletePath::SignalMsi => false,
        };
        if by_irqfd && vector.via_irqfd() {
            vector.signal_irqfd();
            return count(&counts.irqfd);
        }
        match vector.signal_msi() {
            Signalled::Delivered => count(&counts.signal_msi),
            Signalled::Pending => count(&counts.pending),
            Signalled::Refused => count(&counts.refused),
        }
    }
}
