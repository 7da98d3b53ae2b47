use std::io;
use std::mem;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::file::{DiskFile, PUNCH_HOLE, QueueFile, ended, write_flags};
use super::transfer::{self, Transfer};
use super::{Backend, Op, Outcome, Request, Submitter};

/// The most bytes of one entry with a single buffer (MAX_RW_COUNT in the kernel). A longer transfer continues after it.
const MOST_BYTES: usize = 0x7fff_f000;
/// After this many EAGAIN or EINTR results, system calls execute the request.
const MOST_RETRIES: u8 = 16;

/// The backend of a queue whose requests go through the I/O thread's io_uring. System calls of that thread execute what
/// io_uring cannot: discards of block devices (an ioctl), requests that are not aligned for O_DIRECT, zeroes on a file
/// system without fallocate for them, and requests that io_uring refuses for lack of memory.
pub(super) struct UringBackend {
    file: QueueFile,
    /// The requests by token. A token is a slot number of the queue, which is small and is reused.
    in_flight: Vec<Option<InFlight>>,
}

/// A request in the io_uring. Its entry points to data on the heap, which stays in place when this value moves.
struct InFlight {
    work: Work,
    retries: u8,
}

enum Work {
    Transfer { op: Op, rest: Transfer },
    Flush,
    Discard { offset: u64, len: u64 },
    Zero { offset: u64, len: u64, unmap: bool, durable: bool, mode: i32 },
}

impl UringBackend {
    pub(super) fn new(disk: Arc<DiskFile>) -> UringBackend {
        UringBackend { file: QueueFile::new(disk), in_flight: Vec::new() }
    }

    /// Returns the work of `request` for the io_uring, or `Err` with the result if it was executed already.
    fn plan(&self, request: Request) -> Result<Work, io::Result<()>> {
        let file = &self.file;
        if file.disk.in_memory {
            // io_uring would pass it to a worker thread of the kernel, because these file systems cannot tell whether
            // they would wait (no FMODE_NOWAIT). That costs two thread switches for a copy that never waits.
            return Err(file.execute(request));
        }
        transfer::check(&request, file.disk.size(), file.disk.readonly).map_err(Err)?;
        let Request { op, offset, len, .. } = request;
        match op {
            Op::Flush => Ok(Work::Flush),
            _ if len == 0 => Err(Ok(())),
            Op::Read | Op::Write { .. } => {
                let rest = Transfer::new(request);
                if file.is_aligned(&rest) {
                    Ok(Work::Transfer { op, rest })
                } else {
                    Err(file.transfer(op, rest))
                }
            }
            Op::Discard if file.disk.device_block.is_some() || !file.disk.is_whole(offset, len) => {
                Err(file.discard(offset, len))
            }
            Op::Discard => Ok(Work::Discard { offset, len }),
            Op::WriteZeroes { unmap, durable } => match file.zeroing_mode(unmap) {
                Some(mode) if file.disk.is_whole(offset, len) => {
                    Ok(Work::Zero { offset, len, unmap, durable, mode })
                }
                _ => Err(file.write_zeroes(offset, len, unmap, durable)),
            },
        }
    }

    fn push(&mut self, token: u64, flight: InFlight, submitter: &mut dyn Submitter) -> Outcome {
        let entry = flight.work.entry(Fd(self.file.fd()));
        let slot = token as usize;
        if slot >= self.in_flight.len() {
            self.in_flight.resize_with(slot + 1, || None);
        }
        self.in_flight[slot] = Some(flight);
        // SAFETY: the entry points to guest memory, which is valid until the request completes (see
        // `Request::buffers`), and to the vector in `flight`. The vector is neither changed nor freed before the
        // completion removes it from `in_flight` (`drop` leaks what is still there). The descriptor is open as long as
        // the disk.
        match unsafe { submitter.push(token, entry) } {
            Ok(()) => Outcome::Pending,
            Err(error) => match self.in_flight[slot].take() {
                // The kernel lacks a resource at the moment, which is not an error of the disk.
                Some(flight) if is_transient(&error) => self.finish(flight.work),
                _ => Outcome::Done(Err(error)),
            },
        }
    }

    /// Executes the rest of `work` by system calls.
    fn finish(&self, work: Work) -> Outcome {
        Outcome::Done(match work {
            Work::Transfer { op, rest } => self.file.transfer(op, rest),
            Work::Flush => self.file.flush(),
            Work::Discard { offset, len } => self.file.discard(offset, len),
            Work::Zero { offset, len, unmap, durable, .. } => {
                self.file.write_zeroes(offset, len, unmap, durable)
            }
        })
    }
}

impl Backend for UringBackend {
    fn start(&mut self, token: u64, request: Request, submitter: &mut dyn Submitter) -> Outcome {
        match self.plan(request) {
            Ok(work) => self.push(token, InFlight { work, retries: 0 }, submitter),
            Err(over) => Outcome::Done(over),
        }
    }

    fn complete(&mut self, token: u64, result: i32, submitter: &mut dyn Submitter) -> Outcome {
        let taken = self.in_flight.get_mut(token as usize).and_then(Option::take);
        let Some(mut flight) = taken else {
            return super::nothing_in_flight();
        };
        match (&mut flight.work, result) {
            (_, e) if e == -libc::EAGAIN || e == -libc::EINTR => {
                flight.retries += 1;
                if flight.retries > MOST_RETRIES {
                    self.finish(flight.work)
                } else {
                    self.push(token, flight, submitter)
                }
            }
            // write_zeroes tries the other ways, and remembers which ones the file system does not support.
            (Work::Zero { .. }, e) if e == -libc::EOPNOTSUPP || e == -libc::EINVAL => {
                self.finish(flight.work)
            }
            (_, e) if e < 0 => Outcome::Done(Err(io::Error::from_raw_os_error(e.saturating_neg()))),
            (Work::Transfer { op, rest }, 0) if self.file.disk.is_filler(*op, rest.offset()) => {
                self.finish(flight.work)
            }
            (Work::Transfer { op, .. }, 0) => Outcome::Done(Err(ended(*op))),
            (Work::Transfer { rest, .. }, moved) => {
                rest.advance(u64::from(moved.unsigned_abs()));
                match rest.left() {
                    0 => Outcome::Done(Ok(())),
                    _ if self.file.is_aligned(rest) => self.push(token, flight, submitter),
                    _ => self.finish(flight.work),
                }
            }
            (Work::Zero { durable: true, .. }, _) => {
                self.push(token, InFlight { work: Work::Flush, retries: 0 }, submitter)
            }
            _ => Outcome::Done(Ok(())),
        }
    }

    fn reserve(&mut self, tokens: usize) {
        if self.in_flight.len() < tokens {
            self.in_flight.resize_with(tokens, || None);
        }
    }

    fn system_calls(&self) -> u64 {
        self.file.calls()
    }
}

impl Drop for UringBackend {
    fn drop(&mut self) {
        // The io_uring may still read these vectors and use this descriptor, so leak them. The dataplane drains before
        // it drops, so normally there are none.
        if self.in_flight.iter().any(Option::is_some) {
            mem::forget(mem::take(&mut self.in_flight));
            mem::forget(self.file.disk.clone());
        }
    }
}

impl Work {
    fn entry(&self, fd: Fd) -> squeue::Entry {
        match self {
            Work::Transfer { op, rest } => {
                let (buffers, offset) = (rest.next(), rest.offset());
                let (first, count) = (buffers.as_ptr(), buffers.len() as u32);
                match (*op, buffers) {
                    (Op::Write { durable }, [one]) => {
                        opcode::Write::new(fd, one.iov_base.cast_const().cast(), bytes(one))
                            .offset(offset)
                            .rw_flags(write_flags(durable))
                            .build()
                    }
                    (Op::Write { durable }, _) => opcode::Writev::new(fd, first, count)
                        .offset(offset)
                        .rw_flags(write_flags(durable))
                        .build(),
                    (_, [one]) => {
                        opcode::Read::new(fd, one.iov_base.cast(), bytes(one)).offset(offset).build()
                    }
                    _ => opcode::Readv::new(fd, first, count).offset(offset).build(),
                }
            }
            Work::Flush => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            Work::Discard { offset, len } => {
                opcode::Fallocate::new(fd, *len).offset(*offset).mode(PUNCH_HOLE).build()
            }
            Work::Zero { offset, len, mode, .. } => {
                opcode::Fallocate::new(fd, *len).offset(*offset).mode(*mode).build()
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
}

fn bytes(buffer: &libc::iovec) -> u32 {
    buffer.iov_len.min(MOST_BYTES) as u32
}

#[cfg(test)]
#[path = "uring_tests.rs"]
mod tests;
