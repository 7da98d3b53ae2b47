//! The KVM ioctls of the dataplane, as values.
//!
//! What lives here: everything that turns into `KVM_IOEVENTFD`, `KVM_IRQFD`, `KVM_SET_GSI_ROUTING`,
//! `KVM_SIGNAL_MSI` or `KVM_IRQ_LINE`, and [`Vector`], the interrupt built from them; memory slots for mapped BARs;
//! KVM's statistics, and the attributes of its devices. Dropping a value deassigns it with the parameters of its
//! registration. What may not: anything that knows PCI, virtio, VFIO or a queue.
//! Every ioctl goes through the [`VmIoctls`] trait, so that tests run against a fake VM (`testing::FakeVm`).

mod device_attr;
mod error;
mod eventfd;
mod ioeventfd;
mod irqfd;
mod line;
mod memory;
mod routes;
mod stats;
mod sync;
#[cfg(test)]
pub mod testing;
mod types;
mod vector;
#[cfg(test)]
mod vector_tests;
mod vm;

pub use device_attr::set_device_attr;
pub use error::KvmError;
pub use eventfd::readable;
pub use ioeventfd::Ioeventfd;
pub use irqfd::Irqfd;
pub use line::{Level, LevelOutcome, LevelPath, Line};
pub use memory::{MemorySlot, MemorySlots};
pub use routes::{FIRST_MSI_GSI, Gsi, Route, Routes};
pub use stats::{KvmStats, StatsSnapshot};
pub use types::{IoAddress, IoeventfdSpec, Match, MemoryRange, MsiMessage};
pub use vector::{Signalled, Vector, VectorState};
pub use vm::{KvmVm, VmIoctls};
