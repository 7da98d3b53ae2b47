//! Seeing the dataplane work.
//!
//! What lives here: the host's counts around a run ([`Interrupts`]), the kernel functions that ran
//! ([`kernel::KernelEvidence`]). What may not: anything that the dataplane waits for.

pub mod kernel;
mod proc_interrupts;

pub use proc_interrupts::{InterruptLine, Interrupts};
