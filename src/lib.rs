//! doorbell: the smallest VMM in which every variant of a virtio kick and of its completion can be run,
//! switched, measured and explained.
//!
//! # The house
//!
//! | room | what lives there |
//! |---|---|
//! | [`kvm`] | the ioctls as values: ioeventfd, irqfd, GSI routes, MSI, and the interrupt vector made of them |
//! | [`pci`] | config space, capabilities, BARs, MSI-X table and PBA |
//! | [`backend`] | what moves bytes for a request: io_uring, sync, mem, null |
//! | [`dataplane`] | I/O threads: rings, batching, and the one function that interrupts the guest |
//! | [`virtio`] | the virtio-pci transport and the block device |
//! | [`vfio`] | a device of the host given to the guest: container or iommufd, BARs, MSI-X / MSI / INTx |
//! | [`machine`] | a PC small enough to read: memory, vCPUs, boot, ACPI, serial, buses |
//! | [`assembly`] | a machine with its disks and I/O threads |
//! | [`observe`] | what the kernel and the dataplane did: counts, kernel evidence, inspection, traces |
//! | [`bench`] | plans, guests, results, tables |
//! | [`cli`] | one file per verb |
//!
//! Data flows one way in: `kvm` and `pci` know nothing of virtio; `dataplane` knows queues, backends and one
//! `Interrupt`, and nothing of PCI; `machine` knows buses and devices only as traits; `cli` and `bench` stand on top.
#![warn(missing_docs)]

pub mod assembly;
pub mod backend;
pub mod bench;
pub mod cli;
pub mod dataplane;
pub mod kvm;
pub mod machine;
pub mod observe;
pub mod pci;
pub mod vfio;
pub mod virtio;
