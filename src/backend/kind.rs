use strum::{Display, EnumCount, EnumString, VariantArray, VariantNames};

use crate::host::named;

/// The kind of backend that moves the bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumCount, EnumString, VariantArray, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum BackendKind {
    /// A file through the I/O thread's io_uring: many requests in flight, submitted with the thread's next wait.
    IoUring,
    /// A file by `preadv2` and `pwritev2` on the thread that owns the queue: one request at a time.
    Sync,
    /// No storage: every request succeeds at once. A read leaves the guest's buffers unchanged.
    Null,
    /// Anonymous memory of the VMM. Its contents are lost when the VMM ends.
    Mem,
}

impl BackendKind {
    /// Every backend with its name on the command line.
    pub const NAMES: [(&'static str, BackendKind); BackendKind::COUNT] =
        named(<BackendKind as VariantNames>::VARIANTS, <BackendKind as VariantArray>::VARIANTS);

    /// Returns whether requests go to a file or block device. Such a backend needs a path, and may use `direct`.
    pub fn uses_file(self) -> bool {
        matches!(self, BackendKind::IoUring | BackendKind::Sync)
    }
}
