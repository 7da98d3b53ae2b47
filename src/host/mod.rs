//! The host that doorbell runs on. This is the lowest floor.
//!
//! What lives here: facts of the host ([`HostFacts`], [`Posting`]), `/proc/interrupts` ([`ProcInterrupts`]), CPU affinity and the
//! clock ([`pin_to_cpu`], [`monotonic_ns`]), whether io_uring can be used ([`io_uring_available`]), messages ([`log`]) and
//! output that never block on a slow reader ([`Stream`]), threads whose failure is reported ([`thread`]), their
//! confinement ([`sandbox`]), and three helpers ([`Locked`], [`named`], [`read_again`]). What may not: anything that knows KVM's ioctls, a guest, or
//! another room.

pub mod cleanup;
mod cpu;
pub mod events;
mod facts;
mod io_uring;
mod load;
mod locked;
pub mod log;
mod names;
mod posting;
mod proc_interrupts;
mod reread;
pub mod sandbox;
mod stream;
pub mod thread;

pub use cpu::{allowed_cpus, has_spare_cpu, monotonic_ns, pin_to_cpu};
pub use facts::HostFacts;
pub use io_uring::io_uring_available;
pub use load::HostLoad;
pub use locked::{Locked, LockedRw};
pub use names::named;
pub use posting::{Obstacle, Posted, Posting};
pub use proc_interrupts::{InterruptLine, ProcInterrupts};
pub use reread::read_again;
pub use stream::Stream;
