//! Observation of the dataplane.
//!
//! What lives here: the tables of a live VM ([`inspect`]), the socket to inspect and switch it ([`control`]), traces of
//! its requests ([`trace`]), and counts of kernel functions ([`kernel`]). What may not: anything that the dataplane
//! waits for.

pub mod control;
pub mod inspect;
pub mod kernel;
mod memory_view;
mod msi;
mod posted_view;
pub(crate) mod text;
mod threads;
pub mod trace;
mod vfio_view;

pub use inspect::{VmParts, VmView};
pub use memory_view::{MemoryParts, MemoryView};
pub use msi::MsiView;
pub use posted_view::PostedView;
pub use threads::ThreadView;
pub use vfio_view::{VfioVectorView, VfioView};
