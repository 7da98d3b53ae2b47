//! A vector's snapshot for tables and JSON.

use crate::kvm::Gsi;
use crate::vfio::kernel::device_fd::IrqIndex;
use crate::vfio::kernel::region;

/// Which eventfd of a vector the device signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// None: the guest never unmasked it.
    Off,
    /// The one that is bound to the irqfd: the VMM is not involved.
    Kernel,
    /// The one that the VMM reads: while masked, and always with `irq=user`.
    Vmm,
}

/// A snapshot of one vector, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorReport {
    /// Its number.
    pub vector: usize,
    /// INTx, MSI or MSI-X.
    pub index: IrqIndex,
    /// Whether it is armed now; if not, the other fields are from when it was.
    pub armed: bool,
    /// Where the device's signal goes.
    pub signals: Signals,
    /// Whether the device signals the irqfd directly while it is not masked.
    pub direct: bool,
    /// Whether it is masked.
    pub masked: bool,
    /// Its GSI.
    pub gsi: Option<Gsi>,
    /// How often the VMM has read its eventfd.
    pub through_vmm: u64,
    /// How often the host has handled it, by /proc/interrupts.
    pub host: u64,
}

impl VectorReport {
    /// For display: `MSI-X 3`, `INTx`.
    pub fn name(&self) -> String {
        match self.index {
            IrqIndex::Intx => region::irq_name(0).into(),
            index => format!("{} {}", index.name(), self.vector),
        }
    }

    /// For display: how the device's signal reaches the guest while the vector is not masked.
    pub fn armed_by(&self) -> &'static str {
        match (self.direct, self.index) {
            (true, IrqIndex::Intx) => "level irqfd with resamplefd",
            (false, IrqIndex::Intx) => "eventfd read by the VMM, level irqfd",
            (true, _) => "irqfd",
            (false, _) => "eventfd read by the VMM, KVM_SIGNAL_MSI",
        }
    }
}
