use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::geometry::Alignment;
use super::super::testing::{TestRing, against_model, request};
use super::super::{BackendKind, DiskOptions, Op};
use super::*;

const MIB: u64 = 1 << 20;

fn options(path: &Path, kind: BackendKind) -> DiskOptions {
    let (path, size) = (Some(path.into()), None);
    DiskOptions { path, readonly: false, kind, size, direct: false, block_size: None, delay_us: 0 }
}

fn image(size: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

fn cut(path: &Path, size: u64) {
    File::options().write(true).open(path).unwrap().set_len(size).unwrap();
}

fn says<T>(result: Result<T, DiskError>, parts: &[&str]) {
    let sentence = result.err().expect("it is refused").to_string();
    assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence:?} lacks one of {parts:?}");
}

fn rings() -> Vec<(BackendKind, TestRing)> {
    let uring = TestRing::new().map(|ring| (BackendKind::IoUring, ring));
    [(BackendKind::Sync, TestRing::none())].into_iter().chain(uring).collect()
}

#[test]
fn a_disk_follows_its_file_when_it_is_told_to() {
    let (_dir, path) = image(MIB);
    for (kind, mut ring) in rings() {
        cut(&path, MIB);
        let disk = Disk::open(&options(&path, kind)).unwrap();
        let mut backend = disk.queue_backend().unwrap();
        let mut sector = [7; 512];
        let mut write = |offset| {
            ring.run(&mut *backend, request(Op::Write { durable: false }, offset, &mut [&mut sector]))
        };
        cut(&path, 2 * MIB);
        assert!(write(MIB).is_err(), "{kind}: the file has grown, the disk has not");
        let mut told = 0;
        disk.resize(None, |sectors| told = sectors).unwrap();
        assert_eq!((told, disk.size()), (4096, 2 * MIB), "{kind}");
        write(2 * MIB - 512).unwrap();

        cut(&path, 4096);
        disk.resize(None, |sectors| told = sectors).unwrap();
        assert_eq!((told, disk.capacity_sectors()), (8, 8), "{kind}");
        assert!(write(4096).is_err(), "{kind}: beyond the new end");
        write(4096 - 512).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096, "{kind}: no write grew the file");

        cut(&path, MIB);
        disk.resize(Some(8192), |sectors| told = sectors).unwrap();
        assert_eq!(told, 16, "{kind}: only the first bytes of it");
    }
}

#[test]
fn a_size_that_does_not_fit_is_refused_and_changes_nothing() {
    let (_dir, path) = image(MIB);
    let untold = |_| panic!("the guest was told");
    let disk = Disk::open(&options(&path, BackendKind::Sync)).unwrap();
    says(disk.resize(Some(2 * MIB), untold), &["disk.img has 1048576 bytes", "truncate -s 2097152"]);
    says(disk.resize(Some(700), untold), &["700 bytes", "multiple of 512"]);
    says(disk.resize(Some(0), untold), &["size=0"]);
    cut(&path, 1000);
    says(disk.resize(None, untold), &["1000 bytes", "make it 1024"]);
    cut(&path, 0);
    says(disk.resize(None, untold), &["disk.img is empty"]);
    assert_eq!(disk.size(), MIB);

    let memory = DiskOptions { size: Some(MIB), ..options(&path, BackendKind::Mem) };
    let memory = Disk::open(&DiskOptions { path: None, ..memory }).unwrap();
    says(memory.resize(Some(8192), untold), &["backend=mem has a fixed size"]);
    let null = DiskOptions { path: None, size: Some(MIB), ..options(&path, BackendKind::Null) };
    let null = Disk::open(&null).unwrap();
    says(null.resize(None, untold), &["needs a size"]);
    null.resize(Some(8192), |sectors| assert_eq!(sectors, 16)).unwrap();
    assert_eq!(null.size(), 8192);
}

#[test]
fn the_guest_sees_the_logical_blocks_that_were_asked_for() {
    let (_dir, path) = image(MIB);
    for kind in [BackendKind::Sync, BackendKind::Mem, BackendKind::Null] {
        for block in [512, 4096] {
            let disk = Disk::open(&DiskOptions { block_size: Some(block), ..options(&path, kind) }).unwrap();
            let geometry = disk.geometry();
            assert_eq!(geometry.logical_block, block, "{kind}");
            let others = [geometry.physical_block, geometry.minimum_io, geometry.discard_granularity];
            assert!(others.iter().all(|&size| size >= block), "{kind}: {geometry:?}");
        }
    }
}

#[test]
fn an_image_that_ends_inside_a_block_is_refused_or_filled_with_zeroes() {
    let (_dir, path) = image(0);
    std::fs::write(&path, [1; 4608]).unwrap();
    let blocks = |block_size| DiskOptions { block_size, ..options(&path, BackendKind::Sync) };
    says(Disk::open(&blocks(Some(4096))), &["4608 bytes", "multiple of 4096", "make it 8192"]);
    let size = DiskOptions { size: Some(2560), ..blocks(Some(4096)) };
    says(Disk::open(&size), &["size=, 2560 bytes", "multiple of 4096"]);
    assert_eq!(Disk::open(&blocks(None)).unwrap().size(), 4608);
    for (kind, mut ring) in rings() {
        let filled = DiskOptions { readonly: true, kind, ..blocks(Some(4096)) };
        let disk = Disk::open(&filled).unwrap();
        assert_eq!(disk.size(), 8192, "{kind}");
        let mut found = [0xee; 8192];
        let read = request(Op::Read, 0, &mut [&mut found]);
        ring.run(&mut *disk.queue_backend().unwrap(), read).unwrap();
        assert!(found[..4608] == [1; 4608] && found[4608..] == [0; 8192 - 4608], "{kind}");
    }
}

#[test]
fn small_blocks_on_a_disk_that_moves_large_ones_lose_nothing() {
    let (_dir, path) = image(MIB);
    for (kind, mut ring) in rings() {
        cut(&path, 0);
        cut(&path, MIB);
        let small = DiskOptions { direct: true, block_size: Some(512), ..options(&path, kind) };
        let mut disk = match Disk::open(&small) {
            Err(e @ DiskError::NoDirect { .. }) => return eprintln!("skipped: {e}"),
            disk => disk.unwrap(),
        };
        // As if the device had blocks of 4 KiB, which not every host's has.
        let Store::File(file) = &mut disk.store else { panic!("a file") };
        let file = std::sync::Arc::get_mut(file).expect("no queue yet");
        file.direct = Some(Alignment { memory: 4096, offset: 4096 });
        against_model(&mut *disk.queue_backend().unwrap(), &mut ring, MIB as usize, 31);
    }
}
