use serde::{Deserialize, Serialize};

use crate::host::Posting;
use crate::vfio::{VectorReport, VfioPci};

/// A passed-through device, and how each of its vectors is armed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfioView {
    /// Its address on the host: "0000:00:03.0".
    pub device: String,
    /// `irq=`: "kernel" or "user".
    pub irq: String,
    /// Whether it can post its interrupts to running vCPUs, and if not why.
    pub posted_interrupts: String,
    /// Its vectors that are or were armed.
    pub vectors: Vec<VfioVectorView>,
}

/// One vector of a passed-through device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfioVectorView {
    /// "MSI-X 0".
    pub name: String,
    /// It is armed now; if not, the other fields are from when it was.
    pub armed: bool,
    /// How the device's signal reaches the guest while the vector is not masked.
    pub armed_by: String,
    /// It is masked.
    pub masked: bool,
    /// Its GSI.
    pub gsi: Option<u32>,
    /// Interrupts that the host handled, by /proc/interrupts.
    pub host: u64,
    /// Of these, passed on by the VMM.
    pub through_vmm: u64,
}

impl VfioView {
    /// Takes a snapshot of `device`.
    pub fn of(device: &VfioPci) -> VfioView {
        VfioView {
            device: device.bdf().to_string(),
            irq: device.path().to_string(),
            posted_interrupts: Posting::here().by_device().to_string(),
            vectors: device.report().iter().map(VfioVectorView::from).collect(),
        }
    }
}

impl From<&VectorReport> for VfioVectorView {
    fn from(report: &VectorReport) -> VfioVectorView {
        VfioVectorView {
            name: report.name(),
            armed: report.armed,
            armed_by: report.armed_by().into(),
            masked: report.masked,
            gsi: report.gsi,
            host: report.host,
            through_vmm: report.through_vmm,
        }
    }
}
