use std::io;

use crate::kvm::KvmError;
use crate::pci::NoRoom;

use super::NotifyPath;

/// Why a device could not be made or switched.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(String),
    /// KVM refused, or file descriptors ran out.
    #[error("{name}: {source}")]
    Kvm {
        /// The disk.
        name: String,
        /// Why.
        source: KvmError,
    },
    /// A queue's backend could not be made.
    #[error("{name}: no backend for queue {queue}: {source}")]
    Backend {
        /// The disk.
        name: String,
        /// The queue.
        queue: u16,
        /// errno.
        source: io::Error,
    },
    /// The capabilities do not fit into config space: a bug in src/virtio, which its tests would find.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The notify registers cannot move: the driver has read where they are.
    #[error(
        "{name} cannot switch from notify={from} to notify={to} while the VM runs: its notify registers are in {place}"
    )]
    OtherSpace {
        /// The disk.
        name: String,
        /// Path in force.
        from: NotifyPath,
        /// Path wanted.
        to: NotifyPath,
        /// "memory" or "I/O ports".
        place: &'static str,
    },
}
