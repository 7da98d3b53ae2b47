//! Counts of the interrupts that were sent for one queue or for the configuration.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Interrupts sent for one queue or for the configuration, by path. It fills a cache line, because different threads
/// count.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct InterruptCounts {
    /// Written to the eventfd of an irqfd.
    pub irqfd: AtomicU64,
    /// Sent by KVM_SIGNAL_MSI.
    pub signal_msi: AtomicU64,
    /// Made pending by a message, because the vector was masked.
    pub pending: AtomicU64,
    /// KVM found no CPU for the message.
    pub refused: AtomicU64,
    /// Sent by INTx: the pin was raised, or was up and stayed up for one more cause.
    pub intx: AtomicU64,
    /// Not sent: the driver had set no vector, or had disabled INTx.
    pub no_vector: AtomicU64,
}

/// A copy of [`InterruptCounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Written to the eventfd of an irqfd.
    pub irqfd: u64,
    /// Sent by KVM_SIGNAL_MSI.
    pub signal_msi: u64,
    /// Made pending by a message, because the vector was masked.
    pub pending: u64,
    /// KVM found no CPU for the message.
    pub refused: u64,
    /// Sent by INTx.
    pub intx: u64,
    /// Not sent: there was no vector, or INTx was disabled.
    pub no_vector: u64,
}

impl InterruptCounts {
    /// Returns the counts now.
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
