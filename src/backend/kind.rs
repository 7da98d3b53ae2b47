use strum::{Display, EnumCount, EnumString, VariantArray, VariantNames};

use crate::host::named;

/// What moves the bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumCount, EnumString, VariantArray, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum BackendKind {
    /// The file, through the I/O thread's io_uring: many requests in flight, submitted with the thread's next wait.
    IoUring,
    /// The file, by `preadv2` and `pwritev2` in the thread that owns the queue: one request at a time.
    Sync,
    /// Nothing: every request succeeds at once. A read leaves the guest's buffers unchanged.
    Null,
    /// Anonymous memory of the VMM, lost when it ends.
    Mem,
}

impl BackendKind {
    /// Every backend with its name on the command line.
    pub const NAMES: [(&'static str, BackendKind); BackendKind::COUNT] =
        named(<BackendKind as VariantNames>::VARIANTS, <BackendKind as VariantArray>::VARIANTS);

    /// Whether requests go to a file or block device. Such a backend needs a path, and may be `direct`.
    pub fn uses_file(self) -> bool {
        matches!(self, BackendKind::IoUring | BackendKind::Sync)
    }
}
