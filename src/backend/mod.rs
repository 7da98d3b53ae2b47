//! Opens disks and moves the bytes of requests.
//!
//! What lives here: opening and locking disks ([`Disk`]), and the backends: `io_uring`, `sync`, `mem`, `null`.
//! What may not: rings, descriptors, virtio constants, interrupts. A backend gets a checked [`Request`].
//!
//! - `options`, `disk`, with `error`, `lock`, `geometry`, `measure`: turns options into an open, locked disk of known size;
//!   `resize` changes the size
//! - `file`, with `bounce`, `aligned`: the operations on a file by system calls, aligned for O_DIRECT or not
//! - `buffers`, `transfer`: a request's guest buffers, used again by the next; the progress of a read or write through them
//! - `uring`, `sync`, `mem`, `null`: one backend each

mod aligned;
mod bounce;
mod buffers;
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

pub use buffers::Buffers;
pub use disk::Disk;
pub use error::DiskError;
pub use geometry::Geometry;
pub use kind::BackendKind;
pub use options::DiskOptions;

use std::io;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Moves bytes from the disk to guest memory.
    Read,
    /// Moves bytes from guest memory to the disk. With `durable`, they are on stable storage when the request
    /// completes (a write-through disk).
    Write {
        /// Whether the write must be durable when it completes.
        durable: bool,
    },
    /// Moves everything that has completed to stable storage (fdatasync).
    Flush,
    /// The guest no longer needs the contents of the range.
    Discard,
    /// Makes the range read as zeroes. With `unmap`, its space may be freed. `durable`: as for `Write`.
    WriteZeroes {
        /// Whether the range may be deallocated.
        unmap: bool,
        /// Whether the zeroes must be durable when it completes.
        durable: bool,
    },
}

/// One checked request: its range is on the disk, the disk is writable if necessary, and its buffers are in guest
/// memory.
#[derive(Debug)]
pub struct Request {
    /// The operation.
    pub op: Op,
    /// Offset of the first byte on the disk, a multiple of 512.
    pub offset: u64,
    /// Length in bytes. For `Read` and `Write` it is the sum of `buffers`, a multiple of 512; for `Flush` it is 0.
    pub len: u64,
    /// Host addresses of guest buffers, for `Read` and `Write` only. They are valid until the request completes: the
    /// dataplane holds the guest memory, and completes every request before it releases the memory.
    pub buffers: Buffers,
}

// SAFETY: the raw pointers in `buffers` point into guest memory, which every thread may access and which outlives
// the request (see `buffers`).
unsafe impl Send for Request {}

/// The result of starting or continuing a request.
#[derive(Debug)]
pub enum Outcome {
    /// The request is done, with success or an error.
    Done(io::Result<()>),
    /// The request is not done. Completions with its token go to [`Backend::complete`] until it is.
    Pending,
}

/// The queue for the work of an asynchronous backend: the I/O thread's io_uring. The next wait submits all entries of
/// the batch with one system call.
pub trait Submitter {
    /// Queues `entry` with `token`. Its completion goes to [`Backend::complete`].
    ///
    /// # Errors
    /// The thread has no io_uring, or the kernel accepted no more entries.
    ///
    /// # Safety
    /// Everything that `entry` points to stays valid and in place until its completion.
    unsafe fn push(&mut self, token: u64, entry: io_uring::squeue::Entry) -> io::Result<()>;
}

/// Moves the bytes of one queue of a disk. The thread that owns the queue owns it. Every started request becomes `Done`
/// exactly once, also after errors.
pub trait Backend: Send {
    /// Starts `request`. `token` is unique among the requests in flight on this backend.
    fn start(&mut self, token: u64, request: Request, submitter: &mut dyn Submitter) -> Outcome;

    /// Continues the request `token` after a completion with `result` (bytes, or a negative errno).
    fn complete(&mut self, token: u64, result: i32, submitter: &mut dyn Submitter) -> Outcome;

    /// Makes room for requests with the tokens below `tokens`, so that none of them allocates. Tokens above may come, too.
    fn reserve(&mut self, _tokens: usize) {}

    /// Returns how many system calls this backend has made, without those of the thread's wait.
    fn system_calls(&self) -> u64 {
        0
    }
}

/// Returns the outcome for a completion whose token is not in flight.
fn nothing_in_flight() -> Outcome {
    Outcome::Done(Err(io::Error::other("a completion that belongs to no request in flight")))
}
