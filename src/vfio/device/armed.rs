//! What a device's interrupts are armed with at present.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_sys_util::eventfd::EventFd;

use crate::kvm::Vector;
use crate::vfio::device::eventfd_poller::PolledEventfd;
use crate::vfio::device::intx::Intx;
use crate::vfio::device::vector_report::Signals;
use crate::vfio::kernel::device_fd::IrqIndex;

/// The kind of interrupt that the guest has enabled, without the state of single vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All kinds are off.
    Nothing,
    /// INTx, level triggered.
    Intx,
    /// MSI with this many vectors.
    Msi(usize),
    /// MSI-X with a table of this many.
    Msix(usize),
}

/// An MSI or MSI-X vector: two eventfds.
///
/// The first is [`Vector::event`]: bound to the irqfd while unmasked, and its counter is the pending bit while masked. The
/// second is read by the poller thread, which signals the first one's [`Vector`]: there the interrupt becomes pending, or is
/// delivered if the vector has been unmasked meanwhile (or always, with `irq=user`). So no interrupt is lost, in whatever
/// order the device fires, the guest masks, and VFIO switches eventfds.
#[derive(Debug)]
pub(super) struct ArmedVector {
    pub(super) vector: Arc<Vector>,
    pub(super) second: Arc<EventFd>,
    pub(super) bound: Signals,
    pub(super) through_vmm: Arc<AtomicU64>,
    pub(super) _polled: PolledEventfd,
}

#[derive(Debug)]
pub(super) struct ArmedVectors {
    pub(super) index: IrqIndex,
    /// Whether VFIO has enabled the index.
    pub(super) enabled: bool,
    /// By vector; created at the first unmask.
    pub(super) all: Vec<Option<ArmedVector>>,
}

#[derive(Debug)]
pub(super) enum Armed {
    Nothing,
    Intx(Intx),
    Vectors(ArmedVectors),
}

impl Armed {
    pub(super) fn is(&self, wanted: Wanted) -> bool {
        match (self, wanted) {
            (Armed::Nothing, Wanted::Nothing) | (Armed::Intx(_), Wanted::Intx) => true,
            (Armed::Vectors(vectors), Wanted::Msi(count)) => {
                vectors.index == IrqIndex::Msi && vectors.all.len() == count
            }
            (Armed::Vectors(vectors), Wanted::Msix(_)) => vectors.index == IrqIndex::Msix,
            _ => false,
        }
    }
}

impl ArmedVectors {
    pub(super) fn new(index: IrqIndex, count: usize) -> ArmedVectors {
        ArmedVectors { index, enabled: false, all: (0..count).map(|_| None).collect() }
    }
}

impl ArmedVector {
    /// Moves interrupts that came while masked, and that the poller has not read yet, to the pending bit, so that unmasking
    /// delivers them once.
    pub(super) fn drain(&self) {
        if self.vector.state().masked && self.second.read().is_ok() {
            self.through_vmm.fetch_add(1, Ordering::Relaxed);
            let _ = self.vector.event().write(1);
        }
    }

    pub(super) fn fd(&self) -> i32 {
        match self.bound {
            Signals::Off => -1,
            Signals::Kernel => self.vector.event().as_raw_fd(),
            Signals::Vmm => self.second.as_raw_fd(),
        }
    }
}
