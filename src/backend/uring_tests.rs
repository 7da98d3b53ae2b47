use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::super::geometry::Alignment;
use super::super::testing::*;
use super::*;

const SIZE: usize = 3 * 256 * 1024 + 8192;

fn disk(shm: bool) -> DiskFile {
    // These tests are about the way through the io_uring, which files in memory do not take.
    DiskFile { in_memory: false, ..DiskFile::new(file_of(SIZE as u64, shm), SIZE as u64, false) }
}

fn blocky(shm: bool) -> DiskFile {
    DiskFile { direct: Some(Alignment { memory: 512, offset: 4096 }), ..disk(shm) }
}

fn backend(disk: DiskFile) -> UringBackend {
    UringBackend::new(Arc::new(disk))
}

#[test]
fn stores_what_the_model_stores() {
    let Some(mut ring) = TestRing::new() else { return };
    let disks = [(11, disk(false)), (12, disk(true)), (13, blocky(false)), (14, blocky(true))];
    for (seed, disk) in disks {
        against_model(&mut backend(disk), &mut ring, SIZE, seed);
    }
}

#[test]
fn many_in_flight_each_complete_once() {
    let Some(mut ring) = TestRing::new() else { return };
    let mut backend = backend(disk(false));
    let mut sectors: Vec<[u8; 512]> = (0..64).map(|i| [i; 512]).collect();
    for (i, sector) in sectors.iter_mut().enumerate() {
        let write = request(Op::Write { durable: i % 8 == 0 }, i as u64 * 512, &mut [&mut sector[..]]);
        assert!(matches!(backend.start(1000 + i as u64, write, &mut ring), Outcome::Pending));
    }
    let done = ring.wait(&mut backend, 64);
    assert!(done.iter().all(|(_, result)| result.is_ok()));
    let tokens: BTreeSet<u64> = done.iter().map(|&(token, _)| token).collect();
    assert_eq!(tokens, (1000..1064).collect());
    assert!(backend.in_flight.iter().all(Option::is_none));
    assert_eq!(backend.system_calls(), 0, "all of it went through the ring");
    let mut sector = [0; 512];
    for i in 0..64 {
        backend.file.disk.file.read_exact_at(&mut sector, i as u64 * 512).unwrap();
        assert_eq!(sector, [i as u8; 512]);
    }
}

#[test]
fn a_short_transfer_goes_on() {
    let Some(mut ring) = TestRing::new() else { return };
    more_buffers_than_one_call_takes(&mut backend(disk(false)), &mut ring);
}

#[test]
fn zeroes_are_written_where_the_file_system_cannot() {
    let Some(mut ring) = TestRing::new() else { return };
    // tmpfs has no FALLOC_FL_ZERO_RANGE.
    let mut backend = backend(disk(true));
    backend.file.disk.file.write_all_at(&[9; 4096], 0).unwrap();
    for _ in 0..2 {
        ring.run(&mut backend, range(Op::WriteZeroes { unmap: false, durable: false }, 512, 1024)).unwrap();
    }
    let mut bytes = [0; 2048];
    backend.file.disk.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..512], [9; 512]);
    assert_eq!(bytes[512..1536], [0; 1024]);
    assert_eq!(bytes[1536..], [9; 512]);
}

#[test]
fn a_full_disk_is_an_error_of_that_request_only() {
    let Some(mut ring) = TestRing::new() else { return };
    a_full_disk(&mut backend(DiskFile::new(dev_full(), SIZE as u64, false)), &mut ring, true);
}

#[test]
fn a_file_cut_short_behind_our_back_fails_only_what_is_gone() {
    let Some(mut ring) = TestRing::new() else { return };
    let mut backend = backend(disk(false));
    backend.file.disk.file.set_len(8192).unwrap();
    a_file_cut_short(&mut backend, &mut ring);
}

/// A fake io_uring that counts entries, until it has no room.
struct FakeRing {
    pushed: usize,
    room: usize,
}

impl Submitter for FakeRing {
    unsafe fn push(&mut self, _token: u64, _entry: squeue::Entry) -> io::Result<()> {
        if self.pushed == self.room {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.pushed += 1;
        Ok(())
    }
}

#[test]
fn a_ring_that_takes_nothing_fails_the_request() {
    let mut ring = FakeRing { pushed: 0, room: 0 };
    let mut backend = backend(disk(true));
    let mut bytes = [0; 1024];
    let requests = [
        request(Op::Read, 0, &mut [&mut bytes]),
        range(Op::Flush, 0, 0),
        range(Op::Discard, 0, 512),
        range(Op::WriteZeroes { unmap: true, durable: false }, 0, 512),
    ];
    for request in requests {
        assert!(matches!(backend.start(1, request, &mut ring), Outcome::Done(Err(_))));
    }
    assert!(backend.in_flight.iter().all(Option::is_none));
    // It breaks in the middle of a request.
    ring.room = 1;
    assert!(matches!(backend.start(1, request(Op::Read, 0, &mut [&mut bytes]), &mut ring), Outcome::Pending));
    assert!(matches!(backend.complete(1, 512, &mut ring), Outcome::Done(Err(_))));
    assert!(backend.in_flight.iter().all(Option::is_none));
}

#[test]
fn interrupted_entries_are_queued_again_and_in_the_end_done_by_hand() {
    let mut ring = FakeRing { pushed: 0, room: 1000 };
    let mut backend = backend(disk(true));
    backend.file.disk.file.write_all_at(&[3; 1024], 512).unwrap();
    let mut bytes = [0; 1024];
    let read = request(Op::Read, 512, &mut [&mut bytes]);
    assert!(matches!(backend.start(5, read, &mut ring), Outcome::Pending));
    for again in 0..MOST_RETRIES {
        let result = if again % 2 == 0 { -libc::EAGAIN } else { -libc::EINTR };
        assert!(matches!(backend.complete(5, result, &mut ring), Outcome::Pending));
    }
    assert_eq!(ring.pushed, 1 + usize::from(MOST_RETRIES));
    assert!(matches!(backend.complete(5, -libc::EAGAIN, &mut ring), Outcome::Done(Ok(()))));
    assert_eq!(bytes, [3; 1024]);
}

#[test]
fn a_rest_that_is_not_aligned_is_done_by_hand() {
    let mut ring = FakeRing { pushed: 0, room: 1 };
    let mut backend = backend(blocky(true));
    backend.file.disk.file.write_all_at(&[3; 8192], 0).unwrap();
    let mut memory = super::super::aligned::AlignedBuffer::new(8192);
    let read = request(Op::Read, 0, &mut [memory.bytes_mut()]);
    assert!(matches!(backend.start(5, read, &mut ring), Outcome::Pending));
    assert!(matches!(backend.complete(5, 512, &mut ring), Outcome::Done(Ok(()))));
    // The first sector is what the fake ring pretended to have moved.
    assert!(memory.bytes_mut()[512..].iter().all(|&b| b == 3));
}

#[test]
fn durable_zeroes_are_followed_by_a_flush() {
    let mut ring = FakeRing { pushed: 0, room: 1000 };
    let mut backend = backend(disk(false));
    let zeroes = range(Op::WriteZeroes { unmap: true, durable: true }, 0, 512);
    assert!(matches!(backend.start(1, zeroes, &mut ring), Outcome::Pending));
    assert!(matches!(backend.complete(1, 0, &mut ring), Outcome::Pending));
    assert_eq!(ring.pushed, 2);
    assert!(matches!(backend.complete(1, 0, &mut ring), Outcome::Done(Ok(()))));
}

#[test]
fn errors_of_the_kernel_are_passed_on() {
    let mut ring = FakeRing { pushed: 0, room: 1000 };
    let mut backend = backend(disk(true));
    let errno = |outcome| match outcome {
        Outcome::Done(Err(e)) => io::Error::raw_os_error(&e),
        other => panic!("{other:?}"),
    };
    for code in [libc::EIO, libc::ENOSPC, libc::ECANCELED, libc::EOPNOTSUPP] {
        for op in [Op::Flush, Op::Discard] {
            let len = if op == Op::Flush { 0 } else { 512 };
            assert!(matches!(backend.start(1, range(op, 0, len), &mut ring), Outcome::Pending));
            assert_eq!(errno(backend.complete(1, -code, &mut ring)), Some(code));
        }
    }
    assert!(matches!(backend.complete(1, i32::MIN, &mut ring), Outcome::Done(Err(_))), "nothing in flight");
    assert!(!backend.file.disk.no_zero_range.load(Ordering::Relaxed));
}

#[test]
fn a_file_in_memory_needs_no_worker_thread_of_the_kernel() {
    let Some(mut ring) = TestRing::new() else { return };
    let disk = DiskFile::new(file_of(SIZE as u64, true), SIZE as u64, false);
    if !disk.in_memory {
        return eprintln!("skipped: /dev/shm is not in memory here");
    }
    let mut backend = backend(disk);
    let mut sector = [7; 512];
    let write = request(Op::Write { durable: true }, 512, &mut [&mut sector[..]]);
    assert!(matches!(backend.start(0, write, &mut ring), Outcome::Done(Ok(()))));
    let mut read = [0; 512];
    backend.file.disk.file.read_exact_at(&mut read, 512).unwrap();
    assert_eq!(read, sector);
}

#[test]
fn a_write_of_part_of_a_block_does_not_go_through_the_io_uring() {
    let Some(mut ring) = TestRing::new() else { return };
    let mut backend = backend(blocky(false));
    let zeroes = Op::WriteZeroes { unmap: true, durable: false };
    for (op, offset, len) in [(zeroes, 512, 512), (zeroes, 0, 4608), (Op::Discard, 512, 8192)] {
        let outcome = backend.start(0, range(op, offset, len), &mut ring);
        assert!(matches!(outcome, Outcome::Done(Ok(()))), "{op:?}: it would not take part in the lock");
    }
    assert!(matches!(backend.start(0, range(zeroes, 4096, 4096), &mut ring), Outcome::Pending));
    ring.wait(&mut backend, 1);
}

/// Refuses all entries with an errno, as an io_uring does when memory is short or completions were not reaped.
struct Full(i32);

impl Submitter for Full {
    unsafe fn push(&mut self, _: u64, _: squeue::Entry) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }
}

#[test]
fn a_full_io_uring_is_not_an_error_of_the_disk() {
    let mut backend = backend(disk(false));
    for errno in [libc::EAGAIN, libc::EBUSY, libc::EINTR] {
        let mut bytes = [errno as u8; 512];
        let write = request(Op::Write { durable: false }, 0, &mut [&mut bytes[..]]);
        assert!(matches!(backend.start(0, write, &mut Full(errno)), Outcome::Done(Ok(()))), "{errno}");
        backend.file.disk.file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes[511], errno as u8);
        assert!(backend.in_flight.iter().all(Option::is_none));
    }
}
