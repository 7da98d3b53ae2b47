//! Devices of the host passed through to the guest by VFIO.
//!
//! What lives here: finding devices and binding them to vfio-pci ([`Host`], [`bind()`]), opening them through a container
//! or iommufd, their regions and interrupts, and the [`crate::pci::PciDevice`] made of these. What may not: virtio,
//! queues, disks. This room and `virtio` both use `kvm` and `pci`, and never each other.

mod admin;
mod bdf;
mod device;
mod error;
mod kernel;
mod spec;
#[cfg(test)]
mod testing;

pub use admin::bind::{Bound, bind, unbind};
pub use admin::host::{Group, Host, HostDevice, VFIO_PCI, blocks_binding, class_name};
pub use admin::inspect::{Inspection, inspect};
pub use admin::irq_test::{IrqTest, irq_test};
pub use bdf::{Bdf, InvalidBdf};
pub use device::vector_report::{Signals, VectorReport};
pub use device::{VfioPci, VmResources};
pub use error::VfioError;
pub use kernel::device_fd::{DeviceFd, IrqIndex, IrqInfo, Mapping, VfioFd};
pub use kernel::region::{Area, Region};
pub use kernel::{Dma, Guest};
pub use spec::{IrqPath, VfioSpec};
