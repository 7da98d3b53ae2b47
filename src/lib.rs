//! doorbell: the smallest VMM in which every variant of a virtio kick and of its completion can be run,
//! switched, measured and explained.
//!
//! # The house
//!
//! Imports run downwards only: a room uses rooms of lower floors, never of its own or a higher one. `tests/house.rs`
//! reads this table and fails on any other import.
//!
//! | floor | room | what lives there |
//! |---|---|---|
//! | 11 | [`cli`] | one file per verb: flags, messages, exit codes |
//! | 10 | [`lesson`] | questions about what will be counted, marked by the counts |
//! | 9 | [`mod@bench`] | schedules, guests, reference VMMs, results, tables |
//! | 8 | [`observe`] | what the kernel and the dataplane did: counts, kernel evidence, inspection, traces |
//! | 7 | [`vm`] | a VM as plain data, put together, run, ended |
//! | 6 | [`virtio`] | the virtio-pci transport and the block device |
//! | 6 | [`vfio`] | a device of the host given to the guest: container or iommufd, BARs, MSI-X / MSI / INTx |
//! | 5 | [`machine`] | a PC small enough to read: memory, vCPUs, boot, ACPI, serial, buses |
//! | 5 | [`vhost`] | disks whose queues another process runs: the vhost-user protocol |
//! | 4 | [`dataplane`] | I/O threads: virtqueues, batching, and the one function that interrupts the guest |
//! | 3 | [`backend`] | what moves bytes for a request: io_uring, sync, mem, null |
//! | 2 | [`pci`] | config space, capabilities, BARs, MSI-X table and PBA |
//! | 1 | [`kvm`] | the ioctls as values: ioeventfd, irqfd, GSI routes, MSI, and the interrupt vector made of them |
//! | 0 | [`host`] | facts of the host, /proc/interrupts, CPUs, io_uring's abilities, messages, threads and their confinement |
//!
//! `kvm` and `pci` know nothing of virtio; `dataplane` knows queues, backends and one `Interrupt`, and nothing of PCI;
//! `machine` knows buses and devices only as traits; `virtio` and `vfio` never meet.

/// So that unit tests can share what the tests in `tests/` have.
#[cfg(test)]
extern crate self as doorbell;

pub mod backend;
pub mod bench;
pub mod cli;
pub mod dataplane;
pub mod host;
pub mod kvm;
pub mod lesson;
pub mod machine;
pub mod observe;
pub mod pci;
pub mod vfio;
pub mod vhost;
pub mod virtio;
pub mod vm;
