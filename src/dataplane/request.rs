//! Turns a descriptor chain into a checked request (virtio 1.2, 5.2.6).

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::ring::{Chain, RingError};
use super::setup::BlockParams;
use crate::backend::{Buffers, Op, Request};

const SECTOR: u64 = 512;
/// The most bytes of one read or write, as in QEMU. Buffers may overlap, so even a small guest could request terabytes,
/// and a request that has started cannot be cancelled.
const MAX_TRANSFER: u64 = (1 << 31) - SECTOR;

/// The status byte of a request (virtio 1.2, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request succeeded.
    Ok = VIRTIO_BLK_S_OK as u8,
    /// The device or the driver made an error.
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    /// The device does not support this request.
    Unsupp = VIRTIO_BLK_S_UNSUPP as u8,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Todo {
    /// Hand it to the backend.
    Backend(Request),
    /// Complete it with this status.
    Answer(Status),
}

/// A parsed request.
#[derive(Debug)]
pub struct Parsed {
    /// What to do.
    pub todo: Todo,
    /// Host address of the status byte, inside guest memory.
    pub status: *mut u8,
    /// Bytes that the device writes on success, with the status byte: the length for the used ring.
    pub written: u32,
}

/// Parses `chain` and takes its buffers. Message framing is arbitrary (virtio 1.2, 2.7.4.1), so header and status are
/// found by counting bytes, not descriptors.
///
/// # Errors
/// [`RingError::Shape`] if there is no room for the header or the status. Then not even an error can be reported.
pub fn parse(chain: &mut Chain, block: &BlockParams) -> Result<Parsed, RingError> {
    let mut header = [0u8; 16];
    let status = take_last(&mut chain.writable).ok_or(RingError::Shape)?;
    if !take_front(&mut chain.readable, &mut header) {
        return Err(RingError::Shape);
    }
    let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let sector = u64::from_le_bytes([
        header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
    ]);
    let writable = total(&chain.writable);
    let (todo, written) = match kind {
        VIRTIO_BLK_T_IN => {
            let request = transfer(Op::Read, sector, &mut chain.writable, block);
            (if chain.readable.is_empty() { request } else { Todo::Answer(Status::IoErr) }, writable)
        }
        VIRTIO_BLK_T_OUT if writable == 0 => {
            let durable = write_through(block);
            (transfer(Op::Write { durable }, sector, &mut chain.readable, block), 0)
        }
        VIRTIO_BLK_T_FLUSH => (Todo::Backend(request(Op::Flush, 0, 0)), 0),
        VIRTIO_BLK_T_GET_ID => {
            let len = writable.min(u64::from(VIRTIO_BLK_ID_BYTES));
            put(&chain.writable, &block.serial[..len as usize]);
            (Todo::Answer(Status::Ok), len)
        }
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => (Todo::from(range(kind, chain, block)), 0),
        VIRTIO_BLK_T_OUT => (Todo::Answer(Status::IoErr), 0),
        _ => (Todo::Answer(Status::Unsupp), 0),
    };
    // MAX_INDIRECT buffers of 4 GiB exceed the 32 bits of the used ring's length, so saturate. Transfers of that length
    // fail the range check.
    let written = u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1);
    Ok(Parsed { todo, status, written })
}

impl From<Result<Request, Status>> for Todo {
    fn from(result: Result<Request, Status>) -> Todo {
        result.map_or_else(Todo::Answer, Todo::Backend)
    }
}

fn request(op: Op, offset: u64, len: u64) -> Request {
    Request { op, offset, len, buffers: Buffers::default() }
}

fn transfer(op: Op, sector: u64, buffers: &mut Vec<libc::iovec>, block: &BlockParams) -> Todo {
    let len = total(buffers);
    let refused = len > MAX_TRANSFER || matches!(op, Op::Write { .. }) && block.readonly;
    if refused || !len.is_multiple_of(SECTOR) || !in_range(sector, len / SECTOR, block) {
        return Todo::Answer(Status::IoErr);
    }
    Todo::Backend(Request { buffers: Buffers::take(buffers), ..request(op, sector * SECTOR, len) })
}

/// Whether a write of any kind, including write-zeroes, must be durable when it completes.
fn write_through(block: &BlockParams) -> bool {
    !block.writeback.load(Ordering::Relaxed)
}

fn in_range(sector: u64, sectors: u64, block: &BlockParams) -> bool {
    sectors > 0 && sector.checked_add(sectors).is_some_and(|end| end <= block.capacity)
}

/// Parses the range of a discard or write-zeroes from its data: one segment (`max_discard_seg` and
/// `max_write_zeroes_seg` are 1).
fn range(kind: u32, chain: &mut Chain, block: &BlockParams) -> Result<Request, Status> {
    let mut segment = [0u8; 16];
    if !take_front(&mut chain.readable, &mut segment) || !chain.readable.is_empty() {
        return Err(Status::IoErr);
    }
    let (sector, rest) = segment.split_at(8);
    let sector = u64::from_le_bytes(sector.try_into().unwrap_or_default());
    let sectors = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
    let flags = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]);
    let discard = kind == VIRTIO_BLK_T_DISCARD;
    // virtio 1.2, 5.2.6.2: unknown flags, and unmap in a discard, give UNSUPP.
    let allowed = if discard { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
    if flags & !allowed != 0 {
        return Err(Status::Unsupp);
    }
    let max = if discard { block.max_discard_sectors } else { block.max_write_zeroes_sectors };
    if block.readonly || sectors > max || !in_range(sector, u64::from(sectors), block) {
        return Err(Status::IoErr);
    }
    let op = if discard {
        Op::Discard
    } else {
        Op::WriteZeroes { unmap: flags != 0, durable: write_through(block) }
    };
    Ok(request(op, sector * SECTOR, u64::from(sectors) * SECTOR))
}

fn total(buffers: &[libc::iovec]) -> u64 {
    buffers.iter().map(|b| b.iov_len as u64).sum()
}

/// Takes the last byte of the last buffer. No buffer is empty: [`super::Ring`] drops empty ones.
fn take_last(buffers: &mut Vec<libc::iovec>) -> Option<*mut u8> {
    let last = buffers.last_mut()?;
    last.iov_len -= 1;
    // SAFETY: the buffer had at least one byte, so the byte behind the shortened buffer is its own last one.
    let byte = unsafe { last.iov_base.cast::<u8>().add(last.iov_len) };
    if last.iov_len == 0 {
        buffers.pop();
    }
    Some(byte)
}

/// Copies the first bytes of `buffers` to `out` and removes them. Returns `false` if there are too few.
fn take_front(buffers: &mut Vec<libc::iovec>, out: &mut [u8]) -> bool {
    if total(buffers) < out.len() as u64 {
        return false;
    }
    let mut done = 0;
    let mut used_up = 0;
    for buffer in buffers.iter_mut() {
        let n = buffer.iov_len.min(out.len() - done);
        let base = buffer.iov_base.cast::<u8>();
        for (i, byte) in out[done..done + n].iter_mut().enumerate() {
            // SAFETY: i < iov_len, inside guest memory; volatile because the guest may write meanwhile.
            *byte = unsafe { base.add(i).read_volatile() };
        }
        // SAFETY: n <= iov_len.
        buffer.iov_base = unsafe { base.add(n).cast() };
        buffer.iov_len -= n;
        done += n;
        if buffer.iov_len > 0 {
            break;
        }
        used_up += 1;
        if done == out.len() {
            break;
        }
    }
    buffers.drain(..used_up);
    true
}

/// Copies `bytes` into `buffers`; drops what does not fit.
fn put(buffers: &[libc::iovec], mut bytes: &[u8]) {
    for buffer in buffers {
        let (now, later) = bytes.split_at(buffer.iov_len.min(bytes.len()));
        for (i, byte) in now.iter().enumerate() {
            // SAFETY: i < iov_len, inside guest memory.
            unsafe { buffer.iov_base.cast::<u8>().add(i).write_volatile(*byte) };
        }
        bytes = later;
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
