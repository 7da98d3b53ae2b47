//! The kernel's interface: VFIO's device file, containers and iommufd, and KVM's VFIO device.
//!
//! What lives here: ioctls as functions, and the address space of the devices ([`Dma`]). What may not: config space, BARs of
//! the guest, MSI-X.

pub mod device_fd;
pub mod dma;
pub mod kvm_device;
pub mod region;
pub mod sys;

pub use dma::{Dma, Guest};
