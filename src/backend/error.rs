use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::BackendKind;

/// Why a disk cannot be opened. Each message names the cause, the file, and what to do.
#[derive(Debug, Error)]
pub enum DiskError {
    /// There is no such file. A disk is never created.
    #[error("there is no disk at {}: check the path, or make one with `truncate -s 1G FILE`", path.display())]
    Missing {
        /// The disk.
        path: PathBuf,
    },
    /// The path is a directory, a terminal, a pipe.
    #[error("{} is {what}: a disk is a regular file or a block device", path.display())]
    NotADisk {
        /// The disk.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// EACCES or EPERM on opening to read.
    #[error("permission to read {} is missing: run as a user who may read it, or change its mode", path.display())]
    Unreadable {
        /// The disk.
        path: PathBuf,
    },
    /// EACCES, EPERM or EROFS on opening to write.
    #[error("permission to write {} is missing: run as a user who may, or add `readonly`", path.display())]
    Unwritable {
        /// The disk.
        path: PathBuf,
    },
    /// EBUSY: the host uses the block device.
    #[error(
        "{} is in use by this host (mounted, part of an array, or another VMM's): release it, or add `readonly`",
        path.display()
    )]
    Busy {
        /// The disk.
        path: PathBuf,
    },
    /// Another open file description holds a conflicting lock.
    #[error(
        "{} is locked by another doorbell (or QEMU, or an earlier --disk): stop that one, or open it `readonly` in both",
        path.display()
    )]
    Locked {
        /// The disk.
        path: PathBuf,
    },
    /// The file system does not support locks.
    #[error("cannot lock {}: {cause}; put the disk on a file system that has locks", path.display())]
    NoLock {
        /// The disk.
        path: PathBuf,
        /// The error of fcntl.
        cause: io::Error,
    },
    /// Another failure of opening, querying or reading.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The disk.
        path: PathBuf,
        /// The error of the kernel.
        cause: io::Error,
    },
    /// The file has no bytes.
    #[error("{} is empty: give it a size with `truncate -s 1G FILE`", path.display())]
    Empty {
        /// The disk.
        path: PathBuf,
    },
    /// An image of another format.
    #[error(
        "{} is a {format} image and disks are raw: `qemu-img convert -f {format} -O raw {} NEW` makes one",
        path.display(), path.display()
    )]
    NotRaw {
        /// The disk.
        path: PathBuf,
        /// The name of the format in `qemu-img`.
        format: &'static str,
    },
    /// A gzip file.
    #[error("{} is compressed by gzip and disks are raw: `gunzip -k` it first", path.display())]
    Compressed {
        /// The disk.
        path: PathBuf,
    },
    /// `size=0`.
    #[error("size=0 leaves no disk: give a size, for example size=1G")]
    ZeroSize,
    /// The size is not a multiple of the block.
    #[error("the size of {name}, {size} bytes, is not a multiple of {block}: make it {}{or}", size.next_multiple_of(*block))]
    PartialBlock {
        /// The path, or `size=`.
        name: String,
        /// Bytes.
        size: u64,
        /// Bytes of a block.
        block: u64,
        /// What else helps, as the end of the sentence.
        or: &'static str,
    },
    /// The size of a disk in memory cannot change.
    #[error("backend={kind} has a fixed size: only io_uring, sync and null can be resized")]
    FixedSize {
        /// The backend.
        kind: BackendKind,
    },
    /// `size=` is larger than the file.
    #[error(
        "{} has {size} bytes and size= asks for {asked}: ask for less, or grow it with `truncate -s {asked} FILE`",
        path.display()
    )]
    Beyond {
        /// The disk.
        path: PathBuf,
        /// Size of the file in bytes.
        size: u64,
        /// The requested size in bytes.
        asked: u64,
    },
    /// The disk has more bytes than a file offset can express.
    #[error("a disk of {size} bytes is too big: 8 EiB is the limit")]
    TooBig {
        /// Bytes.
        size: u64,
    },
    /// The file system does not support O_DIRECT, or not for this file.
    #[error("the file system of {} does not support O_DIRECT: leave out `direct`", path.display())]
    NoDirect {
        /// The disk.
        path: PathBuf,
    },
    /// `direct` with a backend that reads no file.
    #[error("backend={kind} reads no file, so `direct` has no effect on it: leave it out")]
    DirectWithoutFile {
        /// The backend.
        kind: BackendKind,
    },
    /// A delay of a backend that takes its own time.
    #[error("delay= is for backend=null, not for backend={kind}: leave it out")]
    DelayWithoutNull {
        /// The backend.
        kind: BackendKind,
    },
    /// A file backend without a file.
    #[error("backend={kind} needs a file: give path=FILE")]
    NeedsPath {
        /// The backend.
        kind: BackendKind,
    },
    /// Neither path nor size.
    #[error("backend={kind} needs a size: give size=, for example size=1G")]
    NeedsSize {
        /// The backend.
        kind: BackendKind,
    },
    /// There is no address space for a memory disk.
    #[error("no memory for a disk of {size} bytes: {cause}; give a smaller size=")]
    NoMemory {
        /// Bytes.
        size: u64,
        /// The error of mmap.
        cause: io::Error,
    },
    /// The host does not support the backend.
    #[error("this host does not support backend={kind}: {reason}; or use backend=sync")]
    Unsupported {
        /// The backend.
        kind: BackendKind,
        /// The reason, and how to change it.
        reason: String,
    },
}
