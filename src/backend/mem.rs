use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::transfer::{self, Transfer};
use super::{Backend, Op, Outcome, Request, Submitter};

const PAGE: u64 = 4096;

/// A disk in anonymous memory, shared by its queues. Pages are allocated when they are first written.
///
/// No Rust reference into it exists: every access is a copy through raw pointers in this file. Queues on several
/// threads may copy at the same time. Where their ranges overlap, the bytes of either may remain, as on any disk.
pub(super) struct MemRegion {
    base: NonNull<u8>,
    size: u64,
}

// SAFETY: the region is owned, and accessed only as the comment of the type describes.
unsafe impl Send for MemRegion {}
// SAFETY: as above.
unsafe impl Sync for MemRegion {}

impl MemRegion {
    /// Maps `size` bytes (more than 0) of zeroes.
    pub(super) fn new(size: u64) -> io::Result<MemRegion> {
        let len = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping at an address that the kernel chooses overlaps no existing one.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(address) if base != libc::MAP_FAILED => Ok(MemRegion { base: address, size }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Copies `file` into the region, up to the end of the shorter one. Skips zeroes, because the region has them
    /// already.
    pub(super) fn load(&mut self, file: &File) -> io::Result<()> {
        let mut bytes = vec![0; 1 << 20];
        let mut offset = 0;
        while let Some(data) = next_data(file, offset).filter(|&data| data < self.size) {
            offset = data;
            let most = (self.size - offset).min(bytes.len() as u64) as usize;
            match file.read_at(&mut bytes[..most], offset) {
                Ok(0) => break,
                Ok(len) => {
                    if bytes[..len].iter().any(|&b| b != 0) {
                        // SAFETY: `offset + len` is at most `size`; `self` is borrowed exclusively.
                        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset), len) };
                    }
                    offset += len as u64;
                }
                Err(e) => super::file::retry_if_interrupted(e)?,
            }
        }
        Ok(())
    }

    /// Returns the address of the byte at `offset`, which is at most `size`.
    fn at(&self, offset: u64) -> *mut u8 {
        self.base.as_ptr().wrapping_add(offset as usize)
    }

    fn execute(&self, request: Request, readonly: bool) -> io::Result<()> {
        transfer::check(&request, self.size, readonly)?;
        match request.op {
            Op::Read | Op::Write { .. } => self.copy(request),
            Op::Flush => Ok(()),
            Op::Discard => self.zero(request.offset, request.len, true),
            Op::WriteZeroes { unmap, .. } => self.zero(request.offset, request.len, unmap),
        }
    }

    fn copy(&self, request: Request) -> io::Result<()> {
        let write = matches!(request.op, Op::Write { .. });
        let mut disk = self.at(request.offset);
        let mut transfer = Transfer::new(request);
        transfer.consume(transfer.left(), |guest, len| {
            let (from, to) = if write { (guest, disk) } else { (disk, guest) };
            // SAFETY: `guest` is valid for `len` bytes (see `Request::buffers`) and is in guest memory, so not in
            // this mapping. `check` ensured that the sum of all lengths stays inside the region.
            unsafe { ptr::copy_nonoverlapping(from, to, len) };
            disk = disk.wrapping_add(len);
        });
        Ok(())
    }

    /// Zeroes a checked range. With `unmap`, returns whole pages to the host.
    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let end = offset + len;
        let (first, last) = (offset.next_multiple_of(PAGE), end / PAGE * PAGE);
        if !unmap || first >= last {
            // SAFETY: the range is inside the region.
            unsafe { ptr::write_bytes(self.at(offset), 0, len as usize) };
            return Ok(());
        }
        // SAFETY: the three ranges make up the checked one. Dropped pages of a private anonymous mapping read as
        // zeroes (madvise(2), MADV_DONTNEED).
        unsafe {
            ptr::write_bytes(self.at(offset), 0, (first - offset) as usize);
            ptr::write_bytes(self.at(last), 0, (end - last) as usize);
            match libc::madvise(self.at(first).cast(), (last - first) as usize, libc::MADV_DONTNEED) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

/// Returns the offset of the next data at or after `offset`, or `None`. So a hole of any size is skipped with one call.
fn next_data(file: &File, offset: u64) -> Option<u64> {
    let from = libc::off64_t::try_from(offset).ok()?;
    // SAFETY: no pointers. Nothing uses the file position: reads give their offset.
    match unsafe { libc::lseek64(file.as_raw_fd(), from, libc::SEEK_DATA) } {
        at @ 0.. => Some(at as u64),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
        // A block device, or a file system that cannot report holes.
        _ => Some(offset),
    }
}

impl Drop for MemRegion {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no pointer into it is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size as usize) };
    }
}

/// The backend of one queue of a disk in memory. It executes requests by copying, before `start` returns.
pub(super) struct MemBackend {
    pub(super) region: Arc<MemRegion>,
    pub(super) readonly: bool,
}

impl Backend for MemBackend {
    fn start(&mut self, _token: u64, request: Request, _submitter: &mut dyn Submitter) -> Outcome {
        Outcome::Done(self.region.execute(request, self.readonly))
    }

    fn complete(&mut self, _token: u64, _result: i32, _submitter: &mut dyn Submitter) -> Outcome {
        super::nothing_in_flight()
    }
}
