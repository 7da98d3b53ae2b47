//! What was sent to the guest for one source of interrupts.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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
    /// Told by INTx: the line raised, or held up for one more cause.
    pub intx: AtomicU64,
    /// The driver had set no vector, or had INTx switched off.
    pub no_vector: AtomicU64,
}

/// [`InterruptCounts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Written to an irqfd.
    pub irqfd: u64,
    /// By KVM_SIGNAL_MSI.
    pub signal_msi: u64,
    /// Made pending by a message while masked.
    pub pending: u64,
    /// KVM found no CPU.
    pub refused: u64,
    /// By INTx.
    pub intx: u64,
    /// There was no vector to ring by.
    pub no_vector: u64,
}

impl InterruptCounts {
    /// What was sent up to now.
    pub fn sent(&self) -> Sent {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sent {
            irqfd: read(&self.irqfd),
            signal_msi: read(&self.signal_msi),
            pending: read(&self.pending),
            refused: read(&self.refused),
            intx: read(&self.intx),
            no_vector: read(&self.no_vector),
        }
    }
}

impl Add for Sent {
    type Output = Sent;

    fn add(self, more: Sent) -> Sent {
        Sent {
            irqfd: self.irqfd + more.irqfd,
            signal_msi: self.signal_msi + more.signal_msi,
            pending: self.pending + more.pending,
            refused: self.refused + more.refused,
            intx: self.intx + more.intx,
            no_vector: self.no_vector + more.no_vector,
        }
    }
}
