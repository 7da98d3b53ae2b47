//! The PCI parts that virtio devices and passed-through devices share: config space, capabilities, BARs, MSI-X.
//!
//! What lives here: state machines that turn a guest's config and table accesses into requests to the host (map a BAR
//! here, unmask a vector with this message). What may not: virtio, VFIO, and the host bridge with its devices
//! (`machine::pci_root`).

mod bar;
mod bytes;
mod config;
mod device;
mod msix;

pub use bar::{Bar, BarKind, Bars};
pub use bytes::load;
pub use config::{CONFIG_LEN, Capability, Command, ConfigSpace, Identity, NoRoom, capabilities};
pub use device::{PciDevice, Space, Window};
pub use msix::{BarOffset, MAX_VECTORS, MSIX_CAPABILITY, Msix, VectorChanges};
