//! Detects image formats that are not raw. A guest would see their metadata as the contents of its disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::DiskError;
use super::aligned::{AlignedBuffer, PAGE};

/// The magic bytes at the start, and the name of the format in `qemu-img`.
const FORMATS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
];
const GZIP: &[u8] = &[0x1f, 0x8b, 8];

/// Refuses a regular file that holds a disk in another format.
pub(super) fn raw(file: &File, path: &Path) -> Result<(), DiskError> {
    // The buffer is aligned, because the file may be open with O_DIRECT.
    let mut page = AlignedBuffer::new(PAGE);
    let start = page.bytes_mut();
    if file.read_at(start, 0).is_err() {
        // The disk's first read reports this error.
        return Ok(());
    }
    let path = || path.to_path_buf();
    if start.starts_with(GZIP) {
        return Err(DiskError::Compressed { path: path() });
    }
    match FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some(&(_, format)) => Err(DiskError::NotRaw { path: path(), format }),
        None => Ok(()),
    }
}
