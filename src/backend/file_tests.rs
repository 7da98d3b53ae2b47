use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::geometry::Alignment;
use super::super::sync::SyncBackend;
use super::super::testing::*;
use super::super::{Backend, Outcome};
use super::*;
use crate::host::Locked;

/// A whole number of 4096-byte blocks.
const SIZE: usize = 3 * 256 * 1024 + 8192;

fn backend(disk: DiskFile) -> SyncBackend {
    SyncBackend(QueueFile::new(Arc::new(disk)))
}

fn disk(shm: bool) -> DiskFile {
    DiskFile::new(file_of(SIZE as u64, shm), SIZE as u64, false)
}

/// Returns a disk that behaves as with blocks of 4096 bytes and O_DIRECT, on any file system.
fn blocky(shm: bool) -> DiskFile {
    DiskFile { direct: Some(Alignment { memory: 512, offset: 4096 }), ..disk(shm) }
}

#[test]
fn stores_what_the_model_stores() {
    for (seed, shm) in [(1, false), (2, true)] {
        against_model(&mut backend(disk(shm)), &mut TestRing::none(), SIZE, seed);
    }
}

#[test]
fn stores_the_same_through_the_bounce_buffer() {
    for (seed, shm) in [(3, false), (4, true)] {
        against_model(&mut backend(blocky(shm)), &mut TestRing::none(), SIZE, seed);
    }
}

#[test]
fn writes_zeroes_where_fallocate_cannot() {
    for disk in [disk(false), blocky(false)] {
        disk.no_punch_hole.store(true, Ordering::Relaxed);
        disk.no_zero_range.store(true, Ordering::Relaxed);
        let mut backend = backend(disk);
        let mut ring = TestRing::none();
        let mut bytes = vec![0x5a; SIZE];
        ring.run(&mut backend, request(Op::Write { durable: false }, 0, &mut [&mut bytes])).unwrap();
        // Longer than one round of zeroes is not possible here, but it begins and ends inside a block.
        ring.run(
            &mut backend,
            range(Op::WriteZeroes { unmap: true, durable: false }, 512, SIZE as u64 - 1024),
        )
        .unwrap();
        ring.run(&mut backend, request(Op::Read, 0, &mut [&mut bytes])).unwrap();
        assert!(bytes[..512].iter().all(|&b| b == 0x5a), "the sector before");
        assert!(bytes[512..SIZE - 512].iter().all(|&b| b == 0), "the range");
        assert!(bytes[SIZE - 512..].iter().all(|&b| b == 0x5a), "the sector behind");
    }
}

/// Two queues, on two threads, write neighbouring sectors of the same blocks.
#[test]
fn neighbours_in_one_block_both_survive() {
    const SECTORS: usize = 16;
    const ROUNDS: usize = 500;
    let disk = Arc::new(blocky(true));
    std::thread::scope(|scope| {
        for me in 0..2 {
            let queue = QueueFile::new(disk.clone());
            scope.spawn(move || {
                let mut random = Random(me as u64 + 9);
                for round in 0..ROUNDS {
                    let sector = random.below(SECTORS / 2) * 2 + me;
                    let mut bytes = [(round % 250) as u8; 512];
                    let op = Op::Write { durable: false };
                    queue.execute(request(op, sector as u64 * 512, &mut [&mut bytes])).unwrap();
                    bytes.fill(0xff);
                    queue.execute(request(Op::Read, sector as u64 * 512, &mut [&mut bytes])).unwrap();
                    assert!(
                        bytes.iter().all(|&b| b == (round % 250) as u8),
                        "sector {sector}, round {round}"
                    );
                }
            });
        }
    });
}

#[test]
fn a_file_cut_short_behind_our_back_fails_only_what_is_gone() {
    for disk in [disk(false), blocky(false)] {
        let file = disk.file.try_clone().unwrap();
        let mut backend = backend(disk);
        file.set_len(8192).unwrap();
        a_file_cut_short(&mut backend, &mut TestRing::none());
    }
}

#[test]
fn a_full_disk_is_an_error_of_that_request_only() {
    let mut backend = backend(DiskFile::new(dev_full(), SIZE as u64, false));
    // Not durable: this device has no RWF_DSYNC.
    a_full_disk(&mut backend, &mut TestRing::none(), false);
}

#[test]
fn a_short_transfer_goes_on() {
    more_buffers_than_one_call_takes(&mut backend(disk(true)), &mut TestRing::none());
}

#[test]
fn refuses_what_would_leave_the_disk() {
    let queue = QueueFile::new(Arc::new(disk(true)));
    let mut bytes = [0; 1024];
    let write = Op::Write { durable: false };
    let last = SIZE as u64 - 512;
    assert!(queue.execute(request(write, last, &mut [&mut bytes])).is_err(), "over the end");
    assert!(queue.execute(request(write, u64::MAX - 511, &mut [&mut bytes])).is_err(), "around the end");
    assert!(
        queue.execute(range(Op::WriteZeroes { unmap: true, durable: false }, last, 1024)).is_err(),
        "zeroes over the end"
    );
    assert!(queue.execute(range(Op::Read, 0, 512)).is_err(), "fewer buffers than bytes");
    assert_eq!(queue.disk.file.metadata().unwrap().len(), SIZE as u64, "the file did not grow");
}

#[test]
fn counts_its_system_calls() {
    let mut backend = backend(disk(true));
    let mut ring = TestRing::none();
    let mut bytes = [0; 512];
    for done in 1..4 {
        ring.run(&mut backend, request(Op::Read, 0, &mut [&mut bytes])).unwrap();
        assert_eq!(backend.system_calls(), done);
    }
    ring.run(&mut backend, range(Op::Flush, 0, 0)).unwrap();
    assert_eq!(backend.system_calls(), 4);
}

/// A discard and a write-zeroes with unmap return space to the file system.
#[test]
fn discards_free_blocks() {
    use std::os::unix::fs::MetadataExt;
    let disk = disk(true);
    let queue = QueueFile::new(Arc::new(disk));
    assert!(queue.can_punch_holes());
    queue.disk.file.write_all_at(&vec![1; SIZE], 0).unwrap();
    let full = queue.disk.file.metadata().unwrap().blocks();
    queue.execute(range(Op::Discard, 0, 256 * 1024)).unwrap();
    let less = queue.disk.file.metadata().unwrap().blocks();
    assert!(less < full, "{less} blocks after, {full} before");
    queue.execute(range(Op::WriteZeroes { unmap: true, durable: false }, 256 * 1024, 256 * 1024)).unwrap();
    assert!(queue.disk.file.metadata().unwrap().blocks() < less);
    assert_eq!(queue.disk.file.metadata().unwrap().len(), SIZE as u64);
}

#[test]
fn a_completion_for_nothing_is_an_error() {
    let mut backend = backend(disk(true));
    assert!(matches!(backend.complete(1, 0, &mut TestRing::none()), Outcome::Done(Err(_))));
}

/// A thread that holds the buffer is between the read and the write of a block. Zeroes for another sector of the block
/// must wait, or the write would overwrite them with the old bytes.
#[test]
fn zeroes_for_a_part_of_a_block_wait_for_a_write_to_another() {
    let disk = Arc::new(blocky(false));
    disk.file.write_all_at(&[7; 3 * 4096], 0).unwrap();
    let held = disk.bounce.locked();
    let (other, done) = (disk.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut zeroer = SyncBackend(QueueFile::new(other.clone()));
            let zeroes = range(Op::WriteZeroes { unmap: true, durable: false }, 512, 2 * 4096);
            TestRing::none().run(&mut zeroer, zeroes).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        let early = done.load(Ordering::SeqCst);
        drop(held);
        assert!(!early, "it did not wait");
    });
    let mut bytes = [1; 3 * 4096];
    disk.file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..512].iter().chain(&bytes[512 + 8192..]).all(|&byte| byte == 7));
    assert!(bytes[512..512 + 8192].iter().all(|&byte| byte == 0));
}

#[test]
fn a_discard_leaves_the_parts_of_blocks_at_its_ends_alone() {
    let disk = Arc::new(blocky(true));
    disk.file.write_all_at(&[7; 3 * 4096], 0).unwrap();
    let mut backend = SyncBackend(QueueFile::new(disk.clone()));
    TestRing::none().run(&mut backend, range(Op::Discard, 512, 2 * 4096)).unwrap();
    let mut bytes = [1; 3 * 4096];
    disk.file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4096].iter().chain(&bytes[8192..]).all(|&byte| byte == 7));
    assert!(bytes[4096..8192].iter().all(|&byte| byte == 0));
}
