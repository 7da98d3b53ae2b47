use std::path::PathBuf;

use super::BackendKind;

/// What to open as a disk, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Regular file or block device. Never created.
    /// `io_uring`, `sync`: needed. `mem`: optional, its bytes are what the disk starts with; changes stay in memory.
    /// `null`: used only for its size, and only if `size` is not given.
    pub path: Option<PathBuf>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// What moves the bytes.
    pub kind: BackendKind,
    /// Bytes, a multiple of 512. `io_uring`, `sync`: use only this many bytes of the file, which must have
    /// them. `mem`: bytes beyond the file read as zeroes; needed without a file. `null`: needed without a file.
    pub size: Option<u64>,
    /// Whether to bypass the page cache (O_DIRECT). `io_uring` and `sync` only.
    pub direct: bool,
    /// Logical block that the guest sees, 512 or 4096 bytes; `None`: the block device's, and 512 for everything else.
    pub block_size: Option<u32>,
}
