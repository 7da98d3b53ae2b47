use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;

use super::Op;
use super::aligned::AlignedBuffer;
use super::file::{DiskFile, ended, retry_if_interrupted, write_flags};
use super::transfer::Transfer;

/// Bytes moved at a time; a multiple of every block size.
pub(super) const BOUNCE: usize = 256 * 1024;

impl DiskFile {
    /// Moves a transfer that O_DIRECT would refuse, through an aligned buffer. A write of parts of a block reads the
    /// block, patches it and writes it back; the buffer's lock is held over all three, so that two such writes to
    /// different sectors of one block keep both. A write of whole blocks needs no lock against them: it can only meet
    /// one in a block that both write to, and the order of overlapping writes in flight is the guest's business.
    pub(super) fn bounced(&self, op: Op, mut transfer: Transfer) -> io::Result<()> {
        let block = self.direct.map_or(1, |direct| direct.offset) as u64;
        let mut held = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = held.get_or_insert_with(|| AlignedBuffer::new(BOUNCE)).bytes_mut();
        while transfer.left() > 0 {
            let (from, until) = (transfer.offset(), transfer.offset() + transfer.left());
            let start = from / block * block;
            // The disk is a whole number of blocks (`Disk::open`), so this stays inside it.
            let end = until.next_multiple_of(block).min(start + BOUNCE as u64);
            let until = until.min(end);
            let whole = &mut buffer[..(end - start) as usize];
            let part = (from - start) as usize..(until - start) as usize;
            match op {
                Op::Write { durable } => {
                    let (head, tail) = (from > start, until < end);
                    let last = whole.len() - block as usize;
                    if head || (tail && last == 0) {
                        read(&self.file, &mut whole[..block as usize], start, block)?;
                    }
                    if tail && last > 0 {
                        read(&self.file, &mut whole[last..], end - block, block)?;
                    }
                    transfer.gather(&mut whole[part]);
                    self.write_blocks(whole, start, durable, block)?;
                }
                _ => {
                    read(&self.file, whole, start, block)?;
                    transfer.scatter(&whole[part]);
                }
            }
        }
        Ok(())
    }

    fn write_blocks(&self, bytes: &[u8], offset: u64, durable: bool, block: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let buffer = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            let at = (offset + done as u64) as libc::off_t;
            // SAFETY: `buffer` describes `rest`, which is only read and outlives the call.
            let moved = unsafe {
                libc::pwritev2(
                    std::os::fd::AsRawFd::as_raw_fd(&self.file),
                    &buffer,
                    1,
                    at,
                    write_flags(durable),
                )
            };
            match usize::try_from(moved) {
                Err(_) => retry_if_interrupted(io::Error::last_os_error())?,
                // The rest has to begin at a block again: a part of one is written once more.
                Ok(moved) => match moved as u64 / block * block {
                    0 => return Err(ended(Op::Write { durable })),
                    blocks => done += blocks as usize,
                },
            }
        }
        Ok(())
    }
}

fn read(file: &File, bytes: &mut [u8], offset: u64, block: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Err(e) => retry_if_interrupted(e)?,
            Ok(moved) => match moved as u64 / block * block {
                0 => return Err(ended(Op::Read)),
                blocks => done += blocks as usize,
            },
        }
    }
    Ok(())
}
