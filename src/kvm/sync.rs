//! The locks and atomics of [`super::Vector`]; loom's in tests/loom.rs.

pub use std::sync::atomic::{AtomicBool, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
