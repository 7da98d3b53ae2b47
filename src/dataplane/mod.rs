//! I/O threads, rings, and the one function that interrupts the guest.
//!
//! What lives here: the device's side of a virtqueue ([`Ring`]), the loop that drains it in batches, and
//! [`Interrupt::deliver`], the only place that chooses between irqfd and KVM_SIGNAL_MSI. What may not: PCI, BARs,
//! doorbell addresses. A queue comes here as a [`QueueSetup`]: ring addresses, a kick eventfd, a backend, an interrupt.

use std::sync::atomic;

mod area;
mod event_loop;
mod handle;
mod interrupt;
mod io_thread;
mod fences;
mod poll;
mod request;
mod ring;
mod setup;
mod tracer;
mod timestamps;
#[cfg(test)]
mod testing;
mod waiter;
mod worker;

pub use event_loop::{EventLoop, Flow};
pub use handle::{Attachment, DataplaneError, LoopConfig, LoopCounters, LoopHandle};
pub use interrupt::{
    CompletePath, Interrupt, InterruptCounts, DeviceInterrupts, NO_VECTOR, Sent, in_io_thread,
};
pub use io_thread::IoThread;
pub use ring::{Chain, Ring, RingError};
pub use setup::{BlockParams, QueueCounters, QueueCounts, QueueLayout, QueuePosition, QueueSetup};
pub use tracer::{NoTracer, RequestTracer, Tracer, monotonic_ns};
pub use timestamps::{RequestKind, QueueTrace, Recorded, RequestTimestamps};
pub use worker::Worker;

/// Keeps the calling thread on `cpu`. A CPU that does not exist or is not ours leaves it where it is, with a line.
pub fn pin_to_cpu(cpu: usize) {
    // SAFETY: a zeroed cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return eprintln!("doorbell: there is no CPU {cpu}");
    }
    // SAFETY: in range, by the check above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a valid set of the size said.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0 {
        eprintln!("doorbell: cannot pin to CPU {cpu}: {}", std::io::Error::last_os_error());
    }
}
