use std::io;

/// A KVM operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// An ioctl failed.
    #[error("{ioctl} for {what} failed: {source}")]
    Ioctl {
        /// Name of the ioctl, as in the KVM API document.
        ioctl: &'static str,
        /// The object of the ioctl: "GSI 24", "disk0".
        what: String,
        /// errno.
        source: io::Error,
    },
    /// All GSIs of KVM's routing table are in use.
    #[error(
        "no free GSI: all {limit} entries of KVM's routing table are in use; use fewer queues or devices"
    )]
    NoFreeGsi {
        /// Size of the table (`KVM_CAP_IRQ_ROUTING`).
        limit: u32,
    },
    /// An eventfd could not be created.
    #[error("eventfd failed: {0}; raise the limit on open files (ulimit -n)")]
    EventFd(#[source] io::Error),
}
