use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::testing::{TestRing, against_model, range, request};
use super::super::{Op, Outcome};
use super::*;

const SIZE: u64 = 1 << 20;

fn options(kind: BackendKind) -> DiskOptions {
    DiskOptions { path: None, readonly: false, kind, size: None, direct: false, delay_us: 0 }
}

fn sync(path: &Path) -> DiskOptions {
    DiskOptions { path: Some(path.into()), ..options(BackendKind::Sync) }
}

fn readonly(path: &Path) -> DiskOptions {
    DiskOptions { readonly: true, ..sync(path) }
}

fn image(size: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

fn sentence(options: &DiskOptions) -> String {
    match Disk::open(options) {
        Ok(_) => panic!("opened"),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn says(options: &DiskOptions, parts: &[&str]) {
    let sentence = sentence(options);
    assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence:?} lacks one of {parts:?}");
}

#[test]
fn a_file_is_measured() {
    let (_dir, path) = image(SIZE);
    let disk = Disk::open(&sync(&path)).unwrap();
    assert_eq!(disk.capacity_sectors(), SIZE / 512);
    assert_eq!(disk.geometry().logical_block, 512);
    assert!(disk.geometry().physical_block.is_power_of_two());
    let first = Disk::open(&DiskOptions { size: Some(4096), ..readonly(&path) });
    assert!(matches!(first, Err(DiskError::Locked { .. })));
    drop(disk);
    let first = Disk::open(&DiskOptions { size: Some(4096), ..readonly(&path) }).unwrap();
    assert_eq!(first.capacity_sectors(), 8);
    assert!(!first.supports_discard(), "readonly");
}

#[test]
fn writers_exclude_everybody_and_readers_share() {
    let (_dir, path) = image(SIZE);
    let writer = Disk::open(&sync(&path)).unwrap();
    says(&sync(&path), &["disk.img is locked by another doorbell", "`readonly` in both"]);
    says(&readonly(&path), &["locked by another doorbell"]);
    says(&DiskOptions { kind: BackendKind::Mem, ..sync(&path) }, &["locked by another doorbell"]);
    // The lock lasts as long as a backend can still write.
    let backend = writer.queue_backend().unwrap();
    drop(writer);
    says(&sync(&path), &["locked by another doorbell"]);
    drop(backend);
    let reader = Disk::open(&readonly(&path)).unwrap();
    let another = Disk::open(&readonly(&path)).unwrap();
    says(&sync(&path), &["locked by another doorbell"]);
    drop((reader, another));
    Disk::open(&sync(&path)).unwrap();
}

#[test]
fn says_what_is_wrong_with_a_path() {
    let (dir, path) = image(SIZE);
    says(&sync(&dir.path().join("none")), &["there is no disk at", "none", "truncate -s"]);
    says(&sync(&path.join("below")), &["there is no disk at"]);
    assert!(!dir.path().join("none").exists(), "nothing was created");
    says(&sync(dir.path()), &["is a directory", "regular file or a block device"]);
    says(&sync(Path::new("/dev/null")), &["/dev/null is a character device"]);
    says(&options(BackendKind::Sync), &["backend=sync needs a file", "path=FILE"]);
    says(&options(BackendKind::Mem), &["backend=mem needs a size", "size="]);
    says(&options(BackendKind::Null), &["backend=null needs a size", "size="]);
}

#[test]
fn says_whose_permission_is_missing() {
    let (_dir, path) = image(SIZE);
    let error =
        |readonly, code| open_error(&path, readonly, false, io::Error::from_raw_os_error(code)).to_string();
    assert!(error(false, libc::EACCES).contains("permission to write"), "{}", error(false, libc::EACCES));
    assert!(error(false, libc::EROFS).contains("add `readonly`"));
    assert!(error(true, libc::EACCES).contains("permission to read"));
    assert!(error(false, libc::EBUSY).contains("in use by this host (mounted"));
    // SAFETY: no arguments, no memory.
    if unsafe { libc::geteuid() } == 0 {
        eprintln!("skipped the real file: root may open everything");
        return;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    says(&sync(&path), &["permission to write", "disk.img", "readonly"]);
    Disk::open(&readonly(&path)).unwrap();
}

#[test]
fn says_what_is_wrong_with_a_size() {
    let (_dir, path) = image(1000);
    says(&sync(&path), &["disk.img", "1000 bytes", "not a multiple of 512", "make it 1024"]);
    let sized = |kind, size| DiskOptions { size: Some(size), kind, ..sync(&path) };
    says(
        &sized(BackendKind::Sync, 1024),
        &["disk.img has 1000 bytes and size= asks for 1024", "truncate -s 1024"],
    );
    says(&sized(BackendKind::Null, 700), &["size=, 700 bytes", "make it 1024"]);
    says(&sized(BackendKind::Sync, 0), &["size=0 leaves no disk"]);
    says(&sized(BackendKind::Mem, u64::MAX - 511), &["too big"]);
    let sentence = check_size("a", 4608, 4096).unwrap_err().to_string();
    assert!(sentence.contains("make it 8192, or leave out `direct`"), "{sentence}");
    let (_dir, empty) = image(0);
    says(&sync(&empty), &["disk.img is empty", "truncate -s"]);
    says(
        &DiskOptions { direct: true, ..sized(BackendKind::Mem, 512) },
        &["backend=mem reads no file", "leave it out"],
    );
}

#[test]
fn memory_starts_as_the_file_and_never_changes_it() {
    let (_dir, path) = image(SIZE);
    std::fs::write(&path, vec![6; 8192]).unwrap();
    let mem = |size| DiskOptions { kind: BackendKind::Mem, size, ..sync(&path) };
    assert_eq!(Disk::open(&mem(None)).unwrap().capacity_sectors(), 16);
    assert_eq!(Disk::open(&mem(Some(512))).unwrap().capacity_sectors(), 1);
    let disk = Disk::open(&mem(Some(SIZE))).unwrap();
    let (mut one, mut other) = (disk.queue_backend().unwrap(), disk.queue_backend().unwrap());
    let mut ring = TestRing::none();
    let mut bytes = [0; 1024];
    ring.run(&mut *one, request(Op::Read, 8192 - 512, &mut [&mut bytes])).unwrap();
    assert_eq!((bytes[511], bytes[512]), (6, 0), "the file's bytes, then zeroes");
    bytes.fill(5);
    ring.run(&mut *one, request(Op::Write { durable: true }, 0, &mut [&mut bytes])).unwrap();
    bytes.fill(0);
    ring.run(&mut *other, request(Op::Read, 0, &mut [&mut bytes])).unwrap();
    assert_eq!(bytes, [5; 1024], "queues share the bytes");
    assert_eq!(std::fs::read(&path).unwrap(), vec![6; 8192]);
}

#[test]
fn memory_stores_what_the_model_stores() {
    let disk = Disk::open(&DiskOptions { size: Some(SIZE), ..options(BackendKind::Mem) }).unwrap();
    against_model(&mut *disk.queue_backend().unwrap(), &mut TestRing::none(), SIZE as usize, 31);
}

#[test]
fn null_succeeds_and_leaves_buffers_alone() {
    let size = Some(1 << 40);
    let path = Some("/does/not/exist".into());
    let disk = Disk::open(&DiskOptions { size, path, ..options(BackendKind::Null) }).unwrap();
    assert_eq!(disk.capacity_sectors(), 1 << 31);
    let mut backend = disk.queue_backend().unwrap();
    let mut ring = TestRing::none();
    let mut bytes = [0x77; 512];
    ring.run(&mut *backend, request(Op::Write { durable: true }, 0, &mut [&mut bytes])).unwrap();
    ring.run(&mut *backend, request(Op::Read, 512, &mut [&mut bytes])).unwrap();
    assert_eq!(bytes, [0x77; 512]);
    ring.run(&mut *backend, range(Op::Discard, 0, 512)).unwrap();
    assert!(ring.run(&mut *backend, request(Op::Read, 1 << 40, &mut [&mut bytes])).is_err());
    assert_eq!(backend.system_calls(), 0);
}

#[test]
fn nobody_writes_to_a_readonly_disk() {
    let (_dir, path) = image(SIZE);
    for (_, kind) in BackendKind::NAMES {
        let disk = match Disk::open(&DiskOptions { kind, ..readonly(&path) }) {
            Err(e @ DiskError::Unsupported { .. }) => {
                eprintln!("skipped: {e}");
                continue;
            }
            disk => disk.unwrap(),
        };
        let mut backend = disk.queue_backend().unwrap();
        let mut bytes = [1; 512];
        for request in [
            request(Op::Write { durable: false }, 0, &mut [&mut bytes]),
            range(Op::Discard, 0, 512),
            range(Op::WriteZeroes { unmap: false, durable: false }, 0, 512),
        ] {
            let outcome = backend.start(1, request, &mut TestRing::none());
            assert!(matches!(outcome, Outcome::Done(Err(_))), "{kind}: {outcome:?}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), vec![0; SIZE as usize]);
}

/// Overwrites the device, so the caller must name it: `DOORBELL_TEST_BLOCK_DEVICE=/dev/loop0 cargo test`.
#[test]
fn block_devices() {
    let Some(path) = std::env::var_os("DOORBELL_TEST_BLOCK_DEVICE").map(PathBuf::from) else {
        return eprintln!("skipped: no spare block device named by DOORBELL_TEST_BLOCK_DEVICE");
    };
    let mut rings = vec![(BackendKind::Sync, TestRing::none())];
    rings.extend(TestRing::new().map(|ring| (BackendKind::IoUring, ring)));
    for (kind, mut ring) in rings {
        for direct in [false, true] {
            let disk = Disk::open(&DiskOptions { kind, direct, ..sync(&path) }).unwrap();
            eprintln!("{kind}, direct {direct}: {:?}, discard {}", disk.geometry(), disk.supports_discard());
            let mut backend = disk.queue_backend().unwrap();
            let all = disk.capacity_sectors() * 512;
            ring.run(&mut *backend, range(Op::WriteZeroes { unmap: true, durable: false }, 0, all)).unwrap();
            against_model(&mut *backend, &mut ring, SIZE as usize, 41);
            says(&sync(&path), &["in use by this host"]);
        }
    }
}

#[test]
fn direct_reads_and_writes_go_through_whatever_their_alignment() {
    let (_dir, path) = image(SIZE);
    let mut rings = vec![(BackendKind::Sync, TestRing::none())];
    rings.extend(TestRing::new().map(|ring| (BackendKind::IoUring, ring)));
    for (kind, mut ring) in rings {
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let disk = match Disk::open(&DiskOptions { direct: true, kind, ..sync(&path) }) {
            Err(e @ DiskError::NoDirect { .. }) => return eprintln!("skipped: {e}"),
            disk => disk.unwrap(),
        };
        against_model(&mut *disk.queue_backend().unwrap(), &mut ring, SIZE as usize, 21);
    }
}

#[test]
fn the_last_sector_of_a_readonly_image_of_any_size_is_filled_with_zeroes() {
    let (_dir, path) = image(0);
    let bytes: Vec<u8> = (0..70_000u32).map(|n| n as u8 | 1).collect();
    std::fs::write(&path, &bytes).unwrap();
    says(&sync(&path), &["not a multiple of 512", "or add `readonly`"]);
    for kind in [BackendKind::Sync, BackendKind::IoUring, BackendKind::Mem] {
        let Some(mut ring) = TestRing::new() else { return };
        let disk = Disk::open(&DiskOptions { kind, ..readonly(&path) }).unwrap();
        assert_eq!(disk.capacity_sectors(), 137, "{kind}");
        let mut backend = disk.queue_backend().unwrap();
        for offset in [0, 137 * 512 - 512, 137 * 512 - 1024] {
            let mut found = vec![0xee; 137 * 512 - offset];
            ring.run(&mut *backend, request(Op::Read, offset as u64, &mut [&mut found])).unwrap();
            let (data, zeroes) = found.split_at(70_000 - offset);
            assert!(data == &bytes[offset..] && zeroes.iter().all(|&byte| byte == 0), "{kind} {offset}");
        }
    }
    // A file that became shorter after it was opened is still an error.
    let disk = Disk::open(&readonly(&path)).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(60_000).unwrap();
    let mut found = vec![0; 137 * 512];
    let read = request(Op::Read, 0, &mut [&mut found]);
    TestRing::none().run(&mut *disk.queue_backend().unwrap(), read).unwrap_err();
}

#[test]
fn formats_that_are_not_raw_are_refused_and_the_way_out_is_named() {
    for (magic, name) in [
        (&b"QFI\xfb\0\0\0\x03"[..], "qcow2"),
        (b"KDMV\x01\0\0\0", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1", "vmdk"),
        (b"vhdxfile\0\0", "vhdx"),
        (b"conectix\0\0\0\x02", "vpc"),
    ] {
        let (_dir, path) = image(SIZE);
        std::os::unix::fs::FileExt::write_all_at(
            &OpenOptions::new().write(true).open(&path).unwrap(),
            magic,
            0,
        )
        .unwrap();
        for options in [sync(&path), readonly(&path), DiskOptions { kind: BackendKind::Mem, ..sync(&path) }] {
            says(&options, &["disk.img", name, &format!("qemu-img convert -f {name} -O raw")]);
        }
    }
    let (_dir, path) = image(0);
    std::fs::write(&path, [&[0x1f, 0x8b, 8][..], &[0; 1021]].concat()).unwrap();
    says(&sync(&path), &["disk.img", "gzip", "gunzip"]);
}
