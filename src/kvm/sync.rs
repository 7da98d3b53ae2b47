//! The locks and atomics of [`super::Vector`]; tests/loom.rs puts loom's in their place.

pub use std::sync::atomic::{AtomicBool, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard};

pub use crate::host::Locked;
