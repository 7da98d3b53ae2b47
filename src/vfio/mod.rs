//! A device of the host given to the guest: VFIO.
//!
//! What lives here: finding devices and giving them to vfio-pci ([`Host`], [`bind`]), opening them through a container
//! or iommufd, their regions and interrupts, and the [`crate::pci::PciDevice`] made of all that. What may not: virtio,
//! queues, disks; this room and `virtio` both stand on `kvm` and `pci`, never on each other.

mod bars;
mod bdf;
mod bind;
mod config;
mod device;
mod device_fd;
mod dma;
mod error;
#[cfg(test)]
mod fake;
mod host;
mod in_use;
mod inspect;
mod interrupts;
mod intx;
mod irq_test;
mod kvm_device;
mod ledger;
mod msi;
mod posting;
mod region;
mod rules;
mod spec;
mod sys;
#[cfg(test)]
mod testing;
mod watcher;

pub use bdf::{Bdf, InvalidBdf};
pub use bind::{Bound, bind, unbind};
pub use device::{VmResources, VfioPci};
pub use device_fd::{DeviceFd, IrqIndex, IrqInfo, Mapping, VfioFd};
pub use dma::{Dma, Guest};
pub use error::VfioError;
pub use host::{Group, Host, HostDevice, VFIO_PCI, class_name, blocks_binding};
pub use inspect::{Inspection, inspect};
pub use interrupts::{Signals, VectorReport};
pub use irq_test::{IrqTest, irq_test};
pub use posting::{Obstacle, Posting};
pub use region::{Area, Region};
pub use spec::{IrqPath, VfioSpec};
