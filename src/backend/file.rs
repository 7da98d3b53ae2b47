use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::aligned::{AlignedBuffer, PAGE};
use super::geometry::{Alignment, in_memory};
use super::transfer::{self, Transfer};
use super::{Op, Request};

// <linux/fs.h>. The argument is a range: two u64, start and length.
const BLKDISCARD: libc::c_ulong = 0x1277;

const SECTOR: usize = 512;

/// Frees the blocks of the range, which then reads as zeroes.
pub(super) const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// Zeroes the range and keeps its blocks.
pub(super) const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// An open disk, shared by its queues. Any thread may use it.
pub(super) struct DiskFile {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) readonly: bool,
    /// The end of the file, if it is inside the disk's last sector. Zeroes fill the rest of the sector.
    pub(super) filled_from: Option<u64>,
    /// The logical block size of a block device in bytes; `None` for a regular file.
    pub(super) device_block: Option<u32>,
    /// The alignment that O_DIRECT requires; `None` without O_DIRECT.
    pub(super) direct: Option<Alignment>,
    /// Whether the file is in a memory file system (tmpfs, ramfs), where no operation waits for a device.
    pub(super) in_memory: bool,
    /// The buffer for transfers that are not aligned for the disk. There is only one, which limits the memory that a
    /// guest can make us use. Its lock serializes read-modify-writes.
    pub(super) bounce: Mutex<Option<AlignedBuffer>>,
    /// Whether fallocate has failed with "not supported". If so, it is not tried again.
    pub(super) no_punch_hole: AtomicBool,
    pub(super) no_zero_range: AtomicBool,
}

impl DiskFile {
    /// Returns a disk of `size` bytes in `file`.
    pub(super) fn new(file: File, size: u64, readonly: bool) -> DiskFile {
        DiskFile {
            in_memory: in_memory(&file),
            file,
            size,
            readonly,
            filled_from: None,
            device_block: None,
            direct: None,
            bounce: Mutex::new(None),
            no_punch_hole: AtomicBool::new(false),
            no_zero_range: AtomicBool::new(false),
        }
    }
}

impl DiskFile {
    /// Returns the unit of O_DIRECT writes in bytes. A part of a unit is read, patched and written back under the lock
    /// of `bounce`.
    pub(super) fn direct_block(&self) -> u64 {
        self.direct.map_or(1, |direct| direct.offset as u64)
    }

    /// Returns whether the range consists of whole units.
    pub(super) fn is_whole(&self, offset: u64, len: u64) -> bool {
        offset.is_multiple_of(self.direct_block()) && len.is_multiple_of(self.direct_block())
    }

    /// Returns whether `offset` is in the zeroes that fill the last sector.
    pub(super) fn is_filler(&self, op: Op, offset: u64) -> bool {
        op == Op::Read && self.filled_from.is_some_and(|end| offset >= end)
    }
}

/// A disk for one queue. The thread that owns the queue makes the system calls.
pub(super) struct QueueFile {
    pub(super) disk: Arc<DiskFile>,
    calls: Cell<u64>,
}

impl QueueFile {
    /// Returns the access of one queue to `disk`.
    pub(super) fn new(disk: Arc<DiskFile>) -> QueueFile {
        QueueFile { disk, calls: Cell::new(0) }
    }

    /// Returns how many system calls were made so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Counts a system call and returns the descriptor for it.
    pub(super) fn call(&self) -> RawFd {
        self.calls.set(self.calls.get() + 1);
        self.fd()
    }

    /// Returns the descriptor, which stays open as long as `self.disk`.
    pub(super) fn fd(&self) -> RawFd {
        self.disk.file.as_raw_fd()
    }

    /// Executes all of `request` before it returns.
    pub(super) fn execute(&self, request: Request) -> io::Result<()> {
        transfer::check(&request, self.disk.size, self.disk.readonly)?;
        match request.op {
            Op::Read | Op::Write { .. } => self.transfer(request.op, Transfer::new(request)),
            Op::Flush => self.flush(),
            Op::Discard => self.discard(request.offset, request.len),
            Op::WriteZeroes { unmap, durable } => {
                self.write_zeroes(request.offset, request.len, unmap, durable)
            }
        }
    }

    /// Returns whether the rest of `transfer` can go to the file without the bounce buffer.
    pub(super) fn is_aligned(&self, transfer: &Transfer) -> bool {
        let Some(direct) = self.disk.direct else { return true };
        transfer.offset().is_multiple_of(direct.offset as u64)
            && transfer.rest().iter().all(|b| {
                (b.iov_base as usize).is_multiple_of(direct.memory) && b.iov_len.is_multiple_of(direct.offset)
            })
    }

    /// Moves the rest of a read or write (`op`), with as many system calls as necessary.
    pub(super) fn transfer(&self, op: Op, mut transfer: Transfer) -> io::Result<()> {
        while transfer.left() > 0 {
            if !self.is_aligned(&transfer) {
                return self.bounced(op, transfer);
            }
            let moved = self.vectored(op, transfer.next(), transfer.offset())?;
            if moved == 0 && self.disk.is_filler(op, transfer.offset()) {
                transfer.scatter(&[0; SECTOR][..transfer.left() as usize]);
                break;
            }
            if moved == 0 {
                return Err(ended(op));
            }
            transfer.advance(moved as u64);
        }
        Ok(())
    }

    /// Makes one preadv2 or pwritev2 call. Repeats it only after EINTR.
    pub(super) fn vectored(&self, op: Op, buffers: &[libc::iovec], offset: u64) -> io::Result<usize> {
        let (first, count, offset) = (buffers.as_ptr(), buffers.len() as libc::c_int, offset as libc::off_t);
        loop {
            let fd = self.call();
            // SAFETY: the buffers are guest memory that lives until the request completes (see `Request::buffers`),
            // or our own; `buffers` itself is borrowed for the call.
            let moved = unsafe {
                match op {
                    Op::Write { durable } => libc::pwritev2(fd, first, count, offset, write_flags(durable)),
                    _ => libc::preadv2(fd, first, count, offset, 0),
                }
            };
            match usize::try_from(moved) {
                Ok(moved) => return Ok(moved),
                Err(_) => retry_if_interrupted(io::Error::last_os_error())?,
            }
        }
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        loop {
            self.call();
            match self.disk.file.sync_data() {
                Err(e) => retry_if_interrupted(e)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Frees the range's space.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // A discard is advice, so parts of blocks at either end are kept.
        let block = self.disk.device_block.map_or(1, u64::from).max(self.disk.direct_block());
        let (start, end) = (offset.next_multiple_of(block), (offset + len) / block * block);
        if start >= end {
            return Ok(());
        }
        if self.disk.device_block.is_none() {
            return self.fallocate(PUNCH_HOLE, start, end - start);
        }
        let range = [start, end - start];
        // SAFETY: BLKDISCARD reads two u64 from `range`.
        match unsafe { libc::ioctl(self.call(), BLKDISCARD as _, &range) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the fallocate mode that zeroes a range; `None` if there is none.
    pub(super) fn zeroing_mode(&self, unmap: bool) -> Option<i32> {
        let punch = unmap && !self.disk.no_punch_hole.load(Ordering::Relaxed);
        let zero = !self.disk.no_zero_range.load(Ordering::Relaxed);
        if punch { Some(PUNCH_HOLE) } else { zero.then_some(ZERO_RANGE) }
    }

    /// Zeroes the range: with fallocate if the file system supports it, otherwise by writing zeroes.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool, durable: bool) -> io::Result<()> {
        let (block, until) = (self.disk.direct_block(), offset + len);
        let start = offset.next_multiple_of(block).min(until);
        let end = (until / block * block).max(start);
        // Parts of blocks are read, patched and written under the lock that other partial writes take.
        self.write_zero_bytes(offset, start - offset)?;
        self.write_zero_bytes(end, until - end)?;
        if end > start {
            self.zero(start, end - start, unmap)?;
        }
        // fallocate has no flag for durability.
        if durable { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        while let Some(mode) = self.zeroing_mode(unmap) {
            match self.fallocate(mode, offset, len) {
                Err(e) if cannot(&e) => {
                    let known =
                        if mode == PUNCH_HOLE { &self.disk.no_punch_hole } else { &self.disk.no_zero_range };
                    known.store(true, Ordering::Relaxed);
                }
                // On a block device, the range has a part of a block, which must be written.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
                done => return done,
            }
        }
        self.write_zero_bytes(offset, len)
    }

    fn write_zero_bytes(&self, mut offset: u64, len: u64) -> io::Result<()> {
        #[repr(align(4096))]
        struct Zeroes([u8; 16 * PAGE]);
        static ZEROES: Zeroes = Zeroes([0; 16 * PAGE]);
        const PIECES: u64 = 16;

        let end = offset + len;
        while offset < end {
            let piece = ZEROES.0.len() as u64;
            let now = (end - offset).min(PIECES * piece);
            let buffers = (0..now.div_ceil(piece))
                .map(|i| libc::iovec {
                    // The kernel only reads it: the operation is a write.
                    iov_base: ZEROES.0.as_ptr().cast_mut().cast(),
                    iov_len: (now - i * piece).min(piece) as usize,
                })
                .collect();
            let op = Op::Write { durable: false };
            self.transfer(op, Transfer::new(Request { op, offset, len: now, buffers }))?;
            offset += now;
        }
        Ok(())
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        loop {
            // SAFETY: no pointers. Offset and length are inside the disk, whose size fits an off_t.
            if unsafe { libc::fallocate(self.call(), mode, offset as libc::off_t, len as libc::off_t) } == 0 {
                return Ok(());
            }
            retry_if_interrupted(io::Error::last_os_error())?;
        }
    }

    /// Returns whether discards free space. Tries it with a range beyond the end, where there is nothing to free.
    pub(super) fn can_punch_holes(&self) -> bool {
        let behind = self.disk.size.next_multiple_of(1 << 20);
        i64::try_from(behind + (1 << 20)).is_ok() && self.fallocate(PUNCH_HOLE, behind, 1 << 20).is_ok()
    }
}

/// Returns the flags for pwritev2 and for io_uring entries.
pub(super) fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

/// Returns the error for a call that moved nothing: the file is shorter than when it was opened, or the disk is full.
pub(super) fn ended(op: Op) -> io::Error {
    match op {
        Op::Write { .. } => io::ErrorKind::WriteZero.into(),
        _ => io::ErrorKind::UnexpectedEof.into(),
    }
}

/// Returns whether `error` means that the file system or driver does not support the operation.
pub(super) fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY))
}

pub(super) fn retry_if_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
