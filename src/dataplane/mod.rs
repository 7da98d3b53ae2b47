//! I/O threads, rings, and the function that interrupts the guest.
//!
//! What lives here: the device's side of a virtqueue ([`Ring`]), the loop that drains it in batches, and
//! [`Interrupt::deliver`], the only place that chooses between irqfd and KVM_SIGNAL_MSI. What may not: PCI, BARs,
//! doorbell addresses. A queue comes here as a [`QueueSetup`]: ring addresses, a kick eventfd, a backend, an interrupt.

use std::sync::atomic;

mod area;
mod event_loop;
mod fences;
mod handle;
mod interrupt;
mod io_thread;
mod lookahead;
mod moderation;
mod moderator;
mod poll;
mod queue_loop;
mod request;
mod ring;
mod seat;
mod sent;
mod setup;
#[cfg(test)]
pub(crate) mod testing;
mod timestamps;
mod tracer;
mod waiter;
mod worker;

pub use event_loop::{EventLoop, Flow};
pub use handle::{Attachment, DataplaneError, LoopConfig, LoopCounters, LoopHandle};
pub use interrupt::{CompletePath, DeviceInterrupts, Interrupt, NO_VECTOR, in_io_thread};
pub use io_thread::IoThread;
pub use moderation::{AUTO_MAX_US, Moderation, ModerationSwitch};
pub use queue_loop::{QueueLoop, RunningQueue};
pub use ring::{Chain, Ring, RingError};
pub use sent::{InterruptCounts, Sent};
pub use setup::{BlockParams, QueueCounters, QueueCounts, QueueLayout, QueuePosition, QueueSetup};
pub use timestamps::{QueueTrace, Recorded, RequestKind, RequestTimestamps};
pub use tracer::{NoTracer, RequestTracer, Tracer};
pub use worker::Worker;
