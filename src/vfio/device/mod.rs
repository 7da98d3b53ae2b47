//! The passed-through device as the guest sees it.
//!
//! What lives here: config space, BARs, and interrupts of one device, and [`VfioPci`], which joins them. What may not:
//! `/sys`, drivers of the host, ioctl numbers.

pub mod armed;
pub mod bars;
pub mod config;
pub mod eventfd_poller;
pub mod intx;
pub mod irq_history;
pub mod msi;
pub mod passthrough;
pub mod rules;
pub mod vector_report;
pub mod vector_table;

pub use passthrough::{VfioPci, VmResources};
