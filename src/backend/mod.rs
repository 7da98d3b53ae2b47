//! What moves bytes for a request.
//!
//! What lives here: opening and locking disks ([`Disk`]), and the backends: `io_uring`, `sync`, `mem`, `null`.
//! What may not: rings, descriptors, virtio constants, interrupts. A backend sees an exact, checked [`Request`].
//!
//! - `options`, `disk`, with `error`, `lock`, `geometry`, `measure`: from options to an open, locked, measured disk; `resize`
//! - `file`, with `bounce`, `aligned`: its operations by system calls, aligned for O_DIRECT or not
//! - `transfer`: the progress of a read or write through its buffers
//! - `uring`, `sync`, `mem`, `null`: one backend each

mod aligned;
mod bounce;
mod disk;
mod error;
mod file;
mod format;
mod geometry;
mod kind;
mod lock;
mod measure;
mod mem;
mod null;
mod options;
mod resize;
mod sync;
#[cfg(test)]
mod testing;
mod transfer;
mod uring;

pub use disk::Disk;
pub use error::DiskError;
pub use geometry::Geometry;
pub use kind::BackendKind;
pub use options::DiskOptions;

use std::io;

/// What to do with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Disk to guest memory.
    Read,
    /// Guest memory to disk; `durable`: on stable storage before it completes (a write-through disk).
    Write {
        /// Whether the write must be durable when it completes.
        durable: bool,
    },
    /// Everything completed so far to stable storage (fdatasync).
    Flush,
    /// The range's contents are no longer wanted.
    Discard,
    /// The range reads as zeroes afterwards; `unmap`: its space may be freed; `durable`: as for `Write`.
    WriteZeroes {
        /// Whether the range may be deallocated.
        unmap: bool,
        /// Whether the zeroes must be durable when it completes.
        durable: bool,
    },
}

/// One checked request: in range, writable if it must be, buffers inside guest memory.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// First byte on the disk; a multiple of 512.
    pub offset: u64,
    /// Bytes; for `Read` and `Write` the sum of `buffers`, a multiple of 512; 0 for `Flush`.
    pub len: u64,
    /// Host addresses of guest buffers, `Read` and `Write` only. Valid until the request completes: the dataplane
    /// holds the guest memory and completes every request before it releases the memory.
    pub buffers: Vec<libc::iovec>,
}

// SAFETY: the raw pointers in `buffers` point into guest memory, which every thread may access and which outlives
// the request (see `buffers`).
unsafe impl Send for Request {}

/// Whether a request is done.
#[derive(Debug)]
pub enum Outcome {
    /// Done, successfully or not.
    Done(io::Result<()>),
    /// Not yet: completions with its token go to [`Backend::complete`] until it is done.
    Pending,
}

/// Where an asynchronous backend queues its work: the I/O thread's io_uring. Entries are submitted with the next
/// wait, in one system call for the whole batch.
pub trait Submitter {
    /// Queues `entry` under `token`; its completion comes back through [`Backend::complete`].
    ///
    /// # Errors
    /// The thread has no io_uring, or the kernel accepted no more entries.
    ///
    /// # Safety
    /// Everything that `entry` points to stays valid and in place until its completion.
    unsafe fn push(&mut self, token: u64, entry: io_uring::squeue::Entry) -> io::Result<()>;
}

/// The bytes of one queue of one disk. Owned by the thread that owns the queue. Every started request becomes `Done`
/// exactly once, whatever happens.
pub trait Backend: Send {
    /// Starts `request`. `token` is unique among the requests in flight on this backend.
    fn start(&mut self, token: u64, request: Request, submitter: &mut dyn Submitter) -> Outcome;

    /// A completion queue entry arrived for `token` with `result` (bytes, or a negative errno).
    fn complete(&mut self, token: u64, result: i32, submitter: &mut dyn Submitter) -> Outcome;

    /// System calls made by this backend itself so far (not those of the thread's wait-and-submit).
    fn system_calls(&self) -> u64 {
        0
    }
}

/// A completion came for a token that is not in flight.
fn nothing_in_flight() -> Outcome {
    Outcome::Done(Err(io::Error::other("a completion for no request in flight")))
}
