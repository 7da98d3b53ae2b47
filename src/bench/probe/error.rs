use crate::kvm::KvmError;
use crate::vm::VmError;

/// Why a probe could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The VM could not be made.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The host could not start a thread.
    #[error("the thread of the probe's VM cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The VM stopped by itself.
    #[error("the probe guest ended: {0}")]
    Ended(String),
    /// The guest does not answer.
    #[error("the probe guest did not answer within {0} s; is the host overloaded?")]
    Silent(u64),
    /// The guest stopped with an exception.
    #[error("the probe guest stopped: {0}")]
    Trap(String),
    /// A block failed.
    #[error(
        "the probe's block failed with status {status} (detail {detail}) after {completed} of {requests}"
    )]
    Block {
        /// One of [`status`](crate::bench::probe_abi::status).
        status: u32,
        /// Its meaning depends on the status.
        detail: u64,
        /// Requests completed.
        completed: u32,
        /// Requests of the block.
        requests: u32,
    },
}

/// Why the floor cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// An ioctl failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The guest failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Another call to the host failed.
    #[error("the floor cannot be measured: {0}")]
    Host(String),
}

/// Why the bench could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The guest did not start.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A block failed.
    #[error("{0}: {1}")]
    Block(String, #[source] SessionError),
    /// The floor failed.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The filter leaves nothing to measure.
    #[error("no row's name contains {0:?}; names look like \"read-512-1 fast-mmio+irqfd null\"")]
    Filter(String),
}
