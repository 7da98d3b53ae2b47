use crate::backend::DiskError;
use crate::dataplane::DataplaneError;
use crate::machine::MachineError;
use crate::vfio::VfioError;
use crate::vhost::VhostError;
use crate::virtio::VirtioError;

/// Why a VM cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A disk's file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disk's vhost-user backend.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// A disk's device.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// A loop.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// A passed-through device.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// A disk is configured for a thread that does not exist.
    #[error("disk{disk} has iothread={index}, but {}; raise --iothreads", match .threads {
        0 => "the VM has no I/O threads".to_string(),
        1 => "the only I/O thread is 0".to_string(),
        n => format!("the I/O threads are 0 to {}", n - 1),
    })]
    NoThread {
        /// Its number.
        disk: usize,
        /// The thread asked for.
        index: usize,
        /// The threads there are.
        threads: usize,
    },
}
