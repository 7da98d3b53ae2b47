//! I/O threads, rings, and the one function that rings back.
//!
//! What lives here: the device's side of a virtqueue ([`Ring`]), the loop that drains it in batches, and
//! [`Interrupt::deliver`], the only place that chooses between irqfd and KVM_SIGNAL_MSI. What may not: PCI, BARs,
//! doorbell addresses. A queue comes here as a [`QueueSetup`]: ring addresses, a kick eventfd, a backend, an interrupt.

mod interrupt;

pub use interrupt::{CompletePath, Interrupt, InterruptLines, in_io_thread};
