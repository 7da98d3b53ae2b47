use std::path::PathBuf;

use super::BackendKind;

/// The disk to open, and how to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Regular file or block device. It is never created.
    /// `io_uring`, `sync`: required. `mem`: optional, the initial contents of the disk; changes stay in memory.
    /// `null`: used only for its size, if `size` is not given.
    pub path: Option<PathBuf>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// The kind of backend.
    pub kind: BackendKind,
    /// Size in bytes, a multiple of 512. `io_uring`, `sync`: use only this many bytes of the file, which must have
    /// them. `mem`: bytes beyond the file read as zeroes; required without a file. `null`: required without a file.
    pub size: Option<u64>,
    /// Whether to bypass the page cache (O_DIRECT). `io_uring` and `sync` only.
    pub direct: bool,
    /// Logical block that the guest sees, 512 or 4096 bytes; `None`: the block device's, and 512 for everything else.
    pub block_size: Option<u32>,
    /// How long each request takes, in microseconds, without holding up others; 0: it completes at once. `null` only.
    pub delay_us: u32,
}

impl DiskOptions {
    /// Whether its backend works through the io_uring of the thread that serves it.
    pub fn needs_uring(&self) -> bool {
        self.kind == BackendKind::IoUring || self.delay_us > 0
    }
}
