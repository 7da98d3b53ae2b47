use std::fs::{self, File, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use super::aligned::{AlignedBuffer, PAGE};

// <linux/fs.h>. libc has only some of these.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
const BLKALIGNOFF: libc::c_ulong = 0x127a;

/// The block sizes that a guest sees, in bytes. virtio's configuration space expresses them as exponents and counts of
/// logical blocks (virtio 1.2, 5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The smallest addressable unit: 512, or the value that the block device reports.
    pub logical_block: u32,
    /// The smallest unit that is written without a read; a power of two, at least `logical_block`.
    pub physical_block: u32,
    /// The offset of the first physical block.
    pub alignment_offset: u32,
    /// The recommended smallest transfer.
    pub minimum_io: u32,
    /// The recommended transfer, or 0.
    pub optimal_io: u32,
    /// The smallest discard that frees space.
    pub discard_granularity: u32,
}

impl Geometry {
    /// The geometry of a disk without a file: sectors of 512 bytes in pages.
    pub const MEMORY: Geometry = Geometry {
        logical_block: 512,
        physical_block: 4096,
        alignment_offset: 0,
        minimum_io: 4096,
        optimal_io: 0,
        discard_granularity: 4096,
    };

    /// Returns the geometry of a regular file: sectors on the file system's blocks (at most a page, because a larger
    /// st_blksize is only advice).
    pub(super) fn of_file(metadata: &Metadata) -> Geometry {
        let block = metadata.blksize().clamp(512, 4096) as u32;
        let block = if block.is_power_of_two() { block } else { 4096 };
        Geometry { physical_block: block, minimum_io: block, discard_granularity: block, ..Geometry::MEMORY }
    }

    /// Returns the geometry of a block device, as its driver reports it.
    pub(super) fn of_block_device(file: &File, metadata: &Metadata) -> io::Result<Geometry> {
        let ask = |request| block_ioctl::<u32>(file, request);
        let logical_block = ask(libc::BLKSSZGET as libc::c_ulong)?.max(512);
        let physical_block = ask(libc::BLKPBSZGET as libc::c_ulong).unwrap_or(logical_block);
        let alignment_offset = ask(BLKALIGNOFF).map_or(0, |n| n as i32).max(0) as u32;
        Ok(Geometry {
            logical_block,
            physical_block: physical_block.max(logical_block),
            alignment_offset,
            minimum_io: ask(libc::BLKIOMIN as libc::c_ulong).unwrap_or(logical_block),
            optimal_io: ask(libc::BLKIOOPT as libc::c_ulong).unwrap_or(0),
            discard_granularity: queue_limit(metadata, "discard_granularity")
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0)
                .max(logical_block),
        })
    }
}

/// Returns the size of a block device in bytes.
pub(super) fn block_device_size(file: &File) -> io::Result<u64> {
    block_ioctl::<u64>(file, BLKGETSIZE64)
}

/// Returns whether the driver of the block device supports discards.
pub(super) fn block_device_discards(metadata: &Metadata) -> bool {
    queue_limit(metadata, "discard_max_bytes").is_some_and(|n| n > 0)
}

/// Reads a number of the device's request queue from sysfs. A partition uses the queue of its disk, one directory up.
fn queue_limit(metadata: &Metadata, name: &str) -> Option<u64> {
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    ["queue", "../queue"].iter().find_map(|queue| {
        fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{queue}/{name}")).ok()?.trim().parse().ok()
    })
}

fn block_ioctl<T: Default>(file: &File, request: libc::c_ulong) -> io::Result<T> {
    let mut value = T::default();
    // SAFETY: the requests above store one integer of the size of `T` in `value`.
    match unsafe { libc::ioctl(file.as_raw_fd(), request as _, &mut value) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The alignment that O_DIRECT requires. Both are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Alignment of buffer addresses, in bytes.
    pub memory: usize,
    /// Alignment of offsets, and of the length of every buffer, in bytes.
    pub offset: usize,
}

impl Alignment {
    /// Finds the alignment: from the kernel (statx, `STATX_DIOALIGN`, Linux 6.1), or from the block device, or by reads
    /// of growing size. Returns `None` if the file does not support direct I/O.
    pub(super) fn discover(file: &File, block_device: Option<&Geometry>) -> Option<Alignment> {
        if let Some(known) = statx_alignment(file) {
            return known;
        }
        let same = |block: usize| Alignment { memory: block, offset: block };
        if let Some(geometry) = block_device {
            return Some(same(geometry.logical_block as usize));
        }
        let mut buffer = AlignedBuffer::new(PAGE);
        let fits = |&block: &usize| {
            let bytes = &mut buffer.bytes_mut()[..block];
            // SAFETY: `bytes` is writable for its length during the call.
            unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) >= 0 }
        };
        [512, 1024, 2048, 4096].into_iter().find(fits).map(same)
    }
}

/// Returns `None` if the kernel or the file system does not report the alignment, and `Some(None)` if the file does not
/// support direct I/O.
fn statx_alignment(file: &File) -> Option<Option<Alignment>> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty path with AT_EMPTY_PATH refers to the descriptor. The kernel fills `answer`.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    // SAFETY: zeroed above, and every bit pattern is a valid statx.
    let answer = unsafe { answer.assume_init() };
    if done != 0 || answer.stx_mask & libc::STATX_DIOALIGN == 0 {
        return None;
    }
    let (memory, offset) = (answer.stx_dio_mem_align as usize, answer.stx_dio_offset_align as usize);
    // An alignment above a page would not fit the bounce buffer. No Linux driver has one.
    let usable = |n: usize| n.is_power_of_two() && n <= PAGE;
    Some((usable(memory) && usable(offset)).then_some(Alignment { memory, offset: offset.max(512) }))
}

/// Returns whether `file` is a regular file in a memory file system. Device nodes are in one too (devtmpfs).
pub(super) fn in_memory(file: &File) -> bool {
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    // SAFETY: a zeroed statfs is valid for the result, and the descriptor is open.
    let kind = unsafe {
        let mut about: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &mut about) == 0 { about.f_type } else { 0 }
    };
    [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind)
}

/// From linux/magic.h; libc does not have it.
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;
