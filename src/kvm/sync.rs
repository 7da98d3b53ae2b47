//! The locks and atomics of [`super::Vector`]. tests/loom.rs replaces them with loom's.

pub use std::sync::atomic::{AtomicBool, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard};

pub use crate::host::Locked;
