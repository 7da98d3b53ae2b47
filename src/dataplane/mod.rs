//! I/O threads, rings, and the one function that rings back.
//!
//! What lives here: the device's side of a virtqueue ([`Ring`]), the loop that drains it in batches, and
//! [`Interrupt::deliver`], the only place that chooses between irqfd and KVM_SIGNAL_MSI. What may not: PCI, BARs,
//! doorbell addresses. A queue comes here as a [`QueueSetup`]: ring addresses, a kick eventfd, a backend, an interrupt.

mod area;
mod interrupt;
mod ring;
mod setup;

pub use interrupt::{CompletePath, Interrupt, InterruptCounts, InterruptLines, NO_VECTOR, in_io_thread};
pub use ring::{Chain, Ring, RingError};
pub use setup::{BlockParams, QueueCounters, QueueLayout, QueueSetup};
