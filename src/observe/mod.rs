//! Seeing the dataplane work.
//!
//! What lives here: a live VM as tables ([`inspect`]), the socket to look at it and switch it ([`control`]), traces of
//! its requests ([`trace`]), and the kernel functions that ran
//! ([`kernel`]). What may not: anything that the dataplane waits for.

pub mod control;
pub mod inspect;
pub mod kernel;
mod msi;
mod posted_view;
pub(crate) mod text;
mod threads;
pub mod trace;
mod vfio_view;

pub use inspect::{VmParts, VmView};
pub use msi::MsiView;
pub use posted_view::PostedView;
pub use threads::ThreadView;
pub use vfio_view::{VfioVectorView, VfioView};
