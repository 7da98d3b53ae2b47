use std::io;

use super::Op;
use super::aligned::AlignedBuffer;
use super::file::{QueueFile, ended};
use super::transfer::Transfer;
use crate::host::Locked;

/// How many bytes are moved at a time; a multiple of every block size.
pub(super) const BOUNCE: usize = 256 * 1024;

impl QueueFile {
    /// Moves a transfer that O_DIRECT would refuse through an aligned buffer. A write of a part of a block reads the
    /// block, patches it and writes it back. The buffer's lock is held for all three steps, so two such writes to
    /// different sectors of one block both take effect. A write of whole blocks needs no lock: it conflicts only if
    /// both write the same block, and the order of overlapping writes in flight is undefined anyway.
    pub(super) fn bounced(&self, op: Op, mut transfer: Transfer) -> io::Result<()> {
        let block = self.disk.direct.map_or(1, |direct| direct.offset) as u64;
        let mut held = self.disk.bounce.locked();
        let buffer = held.get_or_insert_with(|| AlignedBuffer::new(BOUNCE)).bytes_mut();
        while transfer.left() > 0 {
            let (from, until) = (transfer.offset(), transfer.offset() + transfer.left());
            let start = from / block * block;
            // The disk is a whole number of blocks (`Disk::open`), so this end is inside it.
            let end = until.next_multiple_of(block).min(start + BOUNCE as u64);
            let until = until.min(end);
            let whole = &mut buffer[..(end - start) as usize];
            let part = (from - start) as usize..(until - start) as usize;
            match op {
                Op::Write { .. } => {
                    let (head, tail) = (from > start, until < end);
                    let last = whole.len() - block as usize;
                    if head || (tail && last == 0) {
                        self.blocks(Op::Read, &mut whole[..block as usize], start, block)?;
                    }
                    if tail && last > 0 {
                        self.blocks(Op::Read, &mut whole[last..], end - block, block)?;
                    }
                    transfer.collect(&mut whole[part]);
                    self.blocks(op, whole, start, block)?;
                }
                _ => {
                    self.blocks(Op::Read, whole, start, block)?;
                    transfer.scatter(&whole[part]);
                }
            }
        }
        Ok(())
    }

    /// Reads or writes whole blocks.
    fn blocks(&self, op: Op, bytes: &mut [u8], offset: u64, block: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &mut bytes[done..];
            let buffer = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
            // The rest must begin at a block, so move a partly moved block again.
            match self.vectored(op, &[buffer], offset + done as u64)? as u64 / block * block {
                0 => return Err(ended(op)),
                moved => done += moved as usize,
            }
        }
        Ok(())
    }
}
