//! Helpers for the tests of this room: an io_uring to run backends on, buffers, random numbers, and the model with
//! which every backend that stores bytes is compared.

use std::fs::File;
use std::io;
use std::path::Path;

use io_uring::{IoUring, squeue};

use super::{Backend, Op, Outcome, Request, Submitter};
use crate::host::io_uring_available;

/// A thread with an io_uring, or without.
pub(super) struct TestRing(Option<IoUring>);

impl TestRing {
    /// Returns one without an io_uring, for backends that need none.
    pub(super) fn none() -> TestRing {
        TestRing(None)
    }

    /// Returns one with an io_uring. If the host has none, prints why and returns `None`.
    pub(super) fn new() -> Option<TestRing> {
        match io_uring_available() {
            Ok(()) => Some(TestRing(Some(IoUring::new(64).expect("available just now")))),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    /// Runs one request to its end.
    pub(super) fn run(&mut self, backend: &mut dyn Backend, request: Request) -> io::Result<()> {
        match backend.start(7, request, self) {
            Outcome::Done(result) => result,
            Outcome::Pending => self.wait(backend, 1).pop().expect("one was waited for").1,
        }
    }

    /// Waits until `count` requests are done.
    pub(super) fn wait(&mut self, backend: &mut dyn Backend, count: usize) -> Vec<(u64, io::Result<()>)> {
        let mut done = Vec::new();
        while done.len() < count {
            let ring = self.0.as_mut().expect("something is pending");
            ring.submit_and_wait(1).expect("submit");
            let found: Vec<_> = ring.completion().map(|c| (c.user_data(), c.result())).collect();
            for (token, result) in found {
                if let Outcome::Done(result) = backend.complete(token, result, self) {
                    done.push((token, result));
                }
            }
        }
        done
    }
}

impl Submitter for TestRing {
    unsafe fn push(&mut self, token: u64, entry: squeue::Entry) -> io::Result<()> {
        let ring = self.0.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: as the caller promises.
        unsafe { ring.submission().push(&entry.user_data(token)) }.map_err(io::Error::other)
    }
}

/// Creates an unnamed file of `size` zeroes in `/dev/shm` (tmpfs: no FALLOC_FL_ZERO_RANGE) or the temporary directory.
pub(super) fn file_of(size: u64, shm: bool) -> File {
    let shm = shm && Path::new("/dev/shm").is_dir();
    let file = if shm { tempfile::tempfile_in("/dev/shm") } else { tempfile::tempfile() };
    let file = file.expect("temporary file");
    file.set_len(size).expect("size");
    file
}

/// Returns a request whose buffers are the given slices.
pub(super) fn request(op: Op, offset: u64, buffers: &mut [&mut [u8]]) -> Request {
    let buffers: Vec<_> = buffers
        .iter_mut()
        .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() })
        .collect();
    let len = buffers.iter().map(|b| b.iov_len as u64).sum();
    Request { op, offset, len, buffers: buffers.into() }
}

/// Returns a request without buffers.
pub(super) fn range(op: Op, offset: u64, len: u64) -> Request {
    Request { op, offset, len, buffers: Default::default() }
}

/// xorshift64*, which gives the same numbers in every run.
pub(super) struct Random(pub u64);

impl Random {
    /// Returns a number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Transfers 1500 buffers: the kernel takes 1024 at once, so the request continues after a short transfer.
pub(super) fn more_buffers_than_one_call_takes(backend: &mut dyn Backend, ring: &mut TestRing) {
    let mut bytes: Vec<u8> = (0..1500 * 512).map(|i| (i / 512) as u8).collect();
    let expected = bytes.clone();
    for op in [Op::Write { durable: false }, Op::Read] {
        let mut pieces: Vec<_> = bytes.chunks_mut(512).collect();
        ring.run(backend, request(op, 512, &mut pieces)).unwrap();
        if op != Op::Read {
            bytes.fill(0);
        }
    }
    assert!(bytes == expected);
}

/// Reads and writes /dev/full. The write fails, and the next request does not.
pub(super) fn a_full_disk(backend: &mut dyn Backend, ring: &mut TestRing, durable: bool) {
    let mut bytes = [7; 512];
    let error = ring.run(backend, request(Op::Write { durable }, 0, &mut [&mut bytes])).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    ring.run(backend, request(Op::Read, 0, &mut [&mut bytes])).unwrap();
    assert_eq!(bytes, [0; 512]);
}

/// Reads a file that was cut to 8192 bytes after it had been opened. Only the missing part fails.
pub(super) fn a_file_cut_short(backend: &mut dyn Backend, ring: &mut TestRing) {
    let mut bytes = vec![1; 8192];
    ring.run(backend, request(Op::Read, 0, &mut [&mut bytes])).expect("still there");
    let error = ring.run(backend, request(Op::Read, 4096, &mut [&mut bytes])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Opens /dev/full for reading and writing.
pub(super) fn dev_full() -> File {
    File::options().read(true).write(true).open("/dev/full").expect("/dev/full")
}

/// Cuts `bytes` into up to five buffers, at multiples of `align`.
fn cut<'a>(mut bytes: &'a mut [u8], align: usize, random: &mut Random) -> Vec<&'a mut [u8]> {
    let mut pieces = Vec::new();
    for _ in 0..random.below(5) {
        let at = (random.below(bytes.len() + 1)) / align * align;
        let (now, later) = bytes.split_at_mut(at);
        pieces.push(now);
        bytes = later;
    }
    pieces.push(bytes);
    pieces
}

/// Runs random requests on a backend of `size` bytes and on a `Vec`. Every read must return what the `Vec` has. A
/// discarded byte is zero or unchanged.
pub(super) fn against_model(backend: &mut dyn Backend, ring: &mut TestRing, size: usize, seed: u64) {
    let mut model = vec![0; size];
    let mut random = Random(seed);
    // The memory has room to start a buffer at a page-aligned address, or next to one.
    let mut memory = super::aligned::AlignedBuffer::new(256 * 1024 + 4096);
    let memory = memory.bytes_mut();
    for step in 0..400 {
        let block = [512, 512, 4096][random.below(3)];
        let offset = random.below(size / block) * block;
        let most = (size - offset).min(256 * 1024) / block;
        let short = if random.below(4) == 0 { most } else { most.min(16) };
        let len = (random.below(short) + 1) * block;
        let skew = [0, 0, 512, 1][random.below(4)];
        let align = [512, 4096, 1][random.below(3)];
        let bytes = &mut memory[skew..skew + len];
        let part = offset..offset + len;
        let (at, length) = (offset as u64, len as u64);
        let durable = random.below(8) == 0;
        let unmap = random.below(2) == 0;
        match random.below(10) {
            0..4 => {
                bytes.fill_with(|| random.below(256) as u8);
                model[part].copy_from_slice(bytes);
                let mut pieces = cut(bytes, align, &mut random);
                let write = request(Op::Write { durable }, at, &mut pieces);
                ring.run(backend, write).expect("write");
            }
            4..8 => {
                bytes.fill(0xee);
                let mut pieces = cut(bytes, align, &mut random);
                let read = request(Op::Read, at, &mut pieces);
                ring.run(backend, read).expect("read");
                assert!(memory[skew..skew + len] == model[part], "step {step}: {len} bytes at {offset}");
            }
            8 => {
                ring.run(backend, range(Op::WriteZeroes { unmap, durable }, at, length))
                    .expect("write zeroes");
                model[part].fill(0);
            }
            _ if unmap => {
                match ring.run(backend, range(Op::Discard, at, length)) {
                    // Some file systems on which tests run have no holes.
                    Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                    result => result.expect("discard"),
                }
                ring.run(backend, request(Op::Read, at, &mut [&mut *bytes])).expect("read after discard");
                for (found, kept) in bytes.iter().zip(&mut model[part]) {
                    assert!(*found == 0 || found == kept, "step {step}: neither zero nor what was there");
                    *kept = *found;
                }
            }
            _ => ring.run(backend, range(Op::Flush, 0, 0)).expect("flush"),
        }
    }
    let mut all = vec![0xee; size];
    ring.run(backend, request(Op::Read, 0, &mut [&mut all])).expect("read all");
    assert!(all == model, "the whole disk at the end");
}
