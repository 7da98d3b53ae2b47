use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{DiskFile, QueueFile};
use super::format::raw;
use super::geometry::{Alignment, block_device_discards, block_device_size};
use super::lock::lock;
use super::mem::{MemBackend, MemRegion};
use super::null::NullBackend;
use super::sync::SyncBackend;
use super::uring::UringBackend;
use super::{Backend, BackendKind, DiskError, Geometry};
use crate::host::{io_uring_available, log};

/// The disk to open, and how to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Regular file or block device. It is never created.
    /// `io_uring`, `sync`: required. `mem`: optional, the initial contents of the disk; changes stay in memory.
    /// `null`: used only for its size, if `size` is not given.
    pub path: Option<PathBuf>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// The kind of backend.
    pub kind: BackendKind,
    /// Size in bytes, a multiple of 512. `io_uring`, `sync`: use only this many bytes of the file, which must have
    /// them. `mem`: bytes beyond the file read as zeroes; required without a file. `null`: required without a file.
    pub size: Option<u64>,
    /// Whether to bypass the page cache (O_DIRECT). `io_uring` and `sync` only.
    pub direct: bool,
    /// How long each request takes, in microseconds, without holding up others; 0: it completes at once. `null` only.
    pub delay_us: u32,
}

impl DiskOptions {
    /// Whether its backend works through the io_uring of the thread that serves it.
    pub fn needs_uring(&self) -> bool {
        self.kind == BackendKind::IoUring || self.delay_us > 0
    }
}

/// An open and locked disk with a known size. It creates a backend for each queue.
pub struct Disk {
    options: DiskOptions,
    capacity: u64,
    geometry: Geometry,
    discards: bool,
    store: Store,
}

enum Store {
    File(Arc<DiskFile>),
    Mem(Arc<MemRegion>),
    Null,
}

impl Disk {
    /// Opens a disk. A file is locked (shared if `readonly`, otherwise exclusive) until the disk and all its backends
    /// are dropped. A block device that is opened for writing is also claimed (O_EXCL), so a mounted one is refused.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(options: &DiskOptions) -> Result<Disk, DiskError> {
        let kind = options.kind;
        if options.direct && !kind.uses_file() {
            return Err(DiskError::DirectWithoutFile { kind });
        }
        if options.delay_us > 0 && kind != BackendKind::Null {
            return Err(DiskError::DelayWithoutNull { kind });
        }
        if let Some(size) = options.size {
            if size == 0 {
                return Err(DiskError::ZeroSize);
            }
            check_size("size=", size, 512)?;
        }
        match kind {
            BackendKind::IoUring => {
                io_uring_available().map_err(|reason| DiskError::Unsupported { kind, reason })?;
                Disk::open_file(options)
            }
            BackendKind::Sync => Disk::open_file(options),
            BackendKind::Mem => Disk::open_mem(options),
            BackendKind::Null => {
                if options.needs_uring() {
                    io_uring_available().map_err(|reason| DiskError::Unsupported { kind, reason })?;
                }
                Disk::open_null(options)
            }
        }
    }

    fn open_file(options: &DiskOptions) -> Result<Disk, DiskError> {
        let path = options.path.as_ref().ok_or(DiskError::NeedsPath { kind: options.kind })?;
        let opened = Opened::open(path, options.readonly, options.direct)?;
        let block_device = opened.geometry.filter(|_| opened.is_block_device());
        let mut geometry = opened.geometry.unwrap_or(Geometry::of_file(&opened.metadata));
        let capacity = match options.size {
            Some(asked) if asked > opened.size => {
                return Err(DiskError::Beyond { path: path.clone(), size: opened.size, asked });
            }
            Some(asked) => asked,
            None => opened.size,
        };
        if capacity < opened.size {
            let path = path.display();
            log::warn(path, format_args!("size= uses the first {capacity} of {} bytes", opened.size));
        }
        let name = path.display().to_string();
        let end = capacity;
        let capacity = if options.readonly && !options.direct { filled(capacity) } else { capacity };
        check_size(&name, capacity, u64::from(geometry.logical_block))?;
        let direct = match options.direct {
            true => Some(
                Alignment::discover(&opened.file, block_device.as_ref())
                    .ok_or_else(|| DiskError::NoDirect { path: path.clone() })?,
            ),
            false => None,
        };
        if let Some(direct) = direct {
            check_size(&name, capacity, direct.offset as u64)?;
            // Requests that the guest aligns to this size need no bounce buffer.
            geometry.physical_block = geometry.physical_block.max(direct.offset as u32);
        }
        let metadata = opened.metadata;
        let mut file = DiskFile::new(opened.file, capacity, options.readonly);
        file.device_block = block_device.map(|geometry| geometry.logical_block);
        file.direct = direct;
        file.filled_from = (end < capacity).then_some(end);
        let file = Arc::new(file);
        let discards = !options.readonly
            && match block_device {
                Some(_) => block_device_discards(&metadata),
                None => QueueFile::new(file.clone()).can_punch_holes(),
            };
        Ok(Disk { options: options.clone(), capacity, geometry, discards, store: Store::File(file) })
    }

    fn open_mem(options: &DiskOptions) -> Result<Disk, DiskError> {
        let opened = options.path.as_ref().map(|path| Opened::open(path, true, false)).transpose()?;
        let capacity = match (options.size, &opened, &options.path) {
            (Some(size), ..) => size,
            (None, Some(opened), Some(path)) => {
                check_size(&path.display().to_string(), filled(opened.size), 512)?;
                filled(opened.size)
            }
            _ => return Err(DiskError::NeedsSize { kind: options.kind }),
        };
        let mut region =
            MemRegion::new(capacity).map_err(|cause| DiskError::NoMemory { size: capacity, cause })?;
        if let (Some(opened), Some(path)) = (&opened, &options.path) {
            region.load(&opened.file).map_err(|cause| failed("read", path, cause))?;
        }
        Ok(Disk::without_file(options, capacity, Store::Mem(Arc::new(region))))
    }

    fn open_null(options: &DiskOptions) -> Result<Disk, DiskError> {
        let capacity = match (options.size, &options.path) {
            (Some(size), _) => size,
            (None, Some(path)) => {
                let size = Opened::open(path, true, false)?.size;
                check_size(&path.display().to_string(), size, 512)?;
                size
            }
            _ => return Err(DiskError::NeedsSize { kind: options.kind }),
        };
        Ok(Disk::without_file(options, capacity, Store::Null))
    }

    fn without_file(options: &DiskOptions, capacity: u64, store: Store) -> Disk {
        let discards = !options.readonly;
        Disk { options: options.clone(), capacity, geometry: Geometry::MEMORY, discards, store }
    }

    /// Returns the options with which it was opened.
    pub fn options(&self) -> &DiskOptions {
        &self.options
    }

    /// Returns the size in sectors of 512 bytes, regardless of the logical block size (virtio 1.2, 5.2.4).
    pub fn capacity_sectors(&self) -> u64 {
        self.capacity / 512
    }

    /// Returns the block sizes for the guest.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns whether the guest may only read.
    pub fn readonly(&self) -> bool {
        self.options.readonly
    }

    /// Returns whether a discard has an effect. WRITE_ZEROES works on every writable disk.
    pub fn supports_discard(&self) -> bool {
        self.discards
    }

    /// Creates a backend for one queue. All backends of a disk share its bytes.
    ///
    /// # Errors
    /// Today no backend fails here. One that opens something per queue could.
    pub fn queue_backend(&self) -> io::Result<Box<dyn Backend>> {
        let readonly = self.options.readonly;
        Ok(match &self.store {
            Store::File(file) if self.options.kind == BackendKind::IoUring => {
                Box::new(UringBackend::new(file.clone()))
            }
            Store::File(file) => Box::new(SyncBackend(QueueFile::new(file.clone()))),
            Store::Mem(region) => Box::new(MemBackend { region: region.clone(), readonly }),
            Store::Null => Box::new(NullBackend::new(self.capacity, readonly, self.options.delay_us)),
        })
    }
}

/// An open, locked file.
struct Opened {
    file: File,
    metadata: Metadata,
    /// The geometry, if it is a block device.
    geometry: Option<Geometry>,
    size: u64,
}

impl Opened {
    fn open(path: &Path, readonly: bool, direct: bool) -> Result<Opened, DiskError> {
        // Check before opening: opening a pipe waits, and opening a device may have effects.
        let metadata = path.metadata().map_err(|e| open_error(path, readonly, direct, e))?;
        if let Some(what) = not_a_disk(&metadata) {
            return Err(DiskError::NotADisk { path: path.into(), what });
        }
        let is_device = metadata.file_type().is_block_device();
        let flags =
            if direct { libc::O_DIRECT } else { 0 } | if is_device && !readonly { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new()
            .read(true)
            .write(!readonly)
            .custom_flags(flags)
            .open(path)
            .map_err(|e| open_error(path, readonly, direct, e))?;
        match lock(&file, !readonly) {
            Ok(true) => {}
            Ok(false) => return Err(DiskError::Locked { path: path.into() }),
            Err(cause) => return Err(DiskError::NoLock { path: path.into(), cause }),
        }
        // Read the size again from the open file, now that the lock prevents changes.
        let ask = |e| failed("read the size of", path, e);
        let metadata = file.metadata().map_err(ask)?;
        let (size, geometry) = match metadata.file_type().is_block_device() {
            true => (
                block_device_size(&file).map_err(ask)?,
                Some(Geometry::of_block_device(&file, &metadata).map_err(ask)?),
            ),
            false => (metadata.len(), None),
        };
        match size {
            0 => Err(DiskError::Empty { path: path.into() }),
            _ if geometry.is_none() => {
                raw(&file, path)?;
                Ok(Opened { file, metadata, geometry, size })
            }
            _ => Ok(Opened { file, metadata, geometry, size }),
        }
    }

    fn is_block_device(&self) -> bool {
        self.geometry.is_some()
    }
}

/// Returns `size` rounded up to whole sectors. An image that is only read may end inside a sector; zeroes fill it.
fn filled(size: u64) -> u64 {
    size.checked_next_multiple_of(512).unwrap_or(size)
}

fn check_size(name: &str, size: u64, block: u64) -> Result<(), DiskError> {
    match size {
        _ if i64::try_from(size).is_err() => Err(DiskError::TooBig { size }),
        _ if !size.is_multiple_of(block) => Err(DiskError::PartialBlock { name: name.into(), size, block }),
        _ => Ok(()),
    }
}

fn not_a_disk(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else {
        Some("a socket")
    }
}

fn open_error(path: &Path, readonly: bool, direct: bool, cause: io::Error) -> DiskError {
    let path = path.to_path_buf();
    match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => DiskError::Missing { path },
        Some(libc::EACCES | libc::EPERM) if readonly => DiskError::Unreadable { path },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => DiskError::Unwritable { path },
        Some(libc::EBUSY) => DiskError::Busy { path },
        Some(libc::EINVAL) if direct => DiskError::NoDirect { path },
        _ => failed("open", &path, cause),
    }
}

fn failed(doing: &'static str, path: &Path, cause: io::Error) -> DiskError {
    DiskError::Io { doing, path: path.to_path_buf(), cause }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
