use std::io;

use super::{Buffers, Op, Request};

/// The most buffers of one system call or io_uring entry (`IOV_MAX`, UIO_MAXIOV in the kernel).
const MOST_BUFFERS: usize = 1024;

/// Checks that `request` is valid on a disk of `size` bytes. The dataplane has checked it already. This second check
/// ensures that no bug there can grow a file or leave a memory region.
pub(super) fn check(request: &Request, size: u64, readonly: bool) -> io::Result<()> {
    let errno = |code| Err(io::Error::from_raw_os_error(code));
    if readonly && !matches!(request.op, Op::Read | Op::Flush) {
        return errno(libc::EROFS);
    }
    if request.op == Op::Flush {
        return Ok(());
    }
    match request.offset.checked_add(request.len) {
        Some(end) if end <= size => {}
        _ => return errno(libc::EINVAL),
    }
    if matches!(request.op, Op::Read | Op::Write { .. }) {
        let bytes = request.buffers.iter().try_fold(0u64, |sum, b| sum.checked_add(b.iov_len as u64));
        if bytes != Some(request.len) {
            return errno(libc::EINVAL);
        }
    }
    Ok(())
}

/// The part of a read or write that remains to be done.
pub(super) struct Transfer {
    buffers: Buffers,
    /// The index of the first buffer that is not done. Its address and length are those of its rest.
    first: usize,
    offset: u64,
    left: u64,
}

// SAFETY: as for `Request`, the buffers are guest memory, which every thread may access.
unsafe impl Send for Transfer {}

impl Transfer {
    /// Returns the transfer of all bytes of a checked request.
    pub(super) fn new(request: Request) -> Transfer {
        let mut buffers = request.buffers;
        buffers.retain(|b| b.iov_len > 0);
        Transfer { buffers, first: 0, offset: request.offset, left: request.len }
    }

    /// Returns the offset of the rest on the disk.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns how many bytes are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Returns the buffers that have bytes left.
    pub(super) fn rest(&self) -> &[libc::iovec] {
        &self.buffers[self.first..]
    }

    /// Returns as many of them as one call takes. They stay in place until [`Transfer::advance`], even if `self` moves.
    pub(super) fn next(&self) -> &[libc::iovec] {
        let rest = self.rest();
        &rest[..rest.len().min(MOST_BUFFERS)]
    }

    /// Removes `bytes` (at most [`Transfer::left`]) from the front.
    pub(super) fn advance(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        (self.offset, self.left) = (self.offset + bytes, self.left - bytes);
        let mut bytes = bytes as usize;
        while bytes > 0 {
            let buffer = &mut self.buffers[self.first];
            let step = bytes.min(buffer.iov_len);
            buffer.iov_base = buffer.iov_base.wrapping_byte_add(step);
            buffer.iov_len -= step;
            bytes -= step;
            self.first += usize::from(buffer.iov_len == 0);
        }
    }

    /// Calls `each` with address and length of consecutive parts of the next `bytes`, and advances past them.
    pub(super) fn consume(&mut self, bytes: u64, mut each: impl FnMut(*mut u8, usize)) {
        let mut bytes = bytes.min(self.left);
        while bytes > 0 {
            let buffer = self.buffers[self.first];
            let step = bytes.min(buffer.iov_len as u64);
            each(buffer.iov_base.cast(), step as usize);
            self.advance(step);
            bytes -= step;
        }
    }

    /// Copies `bytes` into the buffers and advances.
    pub(super) fn scatter(&mut self, mut bytes: &[u8]) {
        self.consume(bytes.len() as u64, |to, len| {
            let (now, later) = bytes.split_at(len);
            // SAFETY: `to` is valid for `len` bytes (see `Request::buffers`). No reference to guest memory exists, so a
            // guest that writes during its read only sees torn bytes.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), to, len) };
            bytes = later;
        });
    }

    /// Fills `bytes` from the buffers and advances.
    pub(super) fn collect(&mut self, bytes: &mut [u8]) {
        let mut done = 0;
        self.consume(bytes.len() as u64, |from, len| {
            // SAFETY: as in `scatter`; `done + len` never passes `bytes.len()`, the sum of all parts.
            unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr().add(done), len) };
            done += len;
        });
    }
}
