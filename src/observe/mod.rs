//! Seeing the dataplane work.
//!
//! What lives here: the host's counts around a run ([`Interrupts`]), the kernel functions that ran
//! ([`kernel::KernelEvidence`]). What may not: anything that the dataplane waits for.

pub mod inspect;
pub mod kernel;
mod msi;
mod proc_interrupts;
mod threads;

pub use inspect::{Inspect, Subjects, VmView};
pub use msi::MsiView;
pub use proc_interrupts::{InterruptLine, Interrupts};
pub use threads::ThreadView;
