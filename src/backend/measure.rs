//! How large a disk is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::geometry::{Alignment, block_device_size};
use super::{DiskError, DiskOptions, Geometry};

/// Bytes of a regular file or of a block device, now.
pub(super) fn size_of(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() { block_device_size(file) } else { Ok(metadata.len()) }
}

/// The size of a disk on a file of `there` bytes, and where the file ends in it; `asked`: only that many of its bytes.
pub(super) fn extent(
    options: &DiskOptions,
    path: &Path,
    there: u64,
    asked: Option<u64>,
    geometry: &Geometry,
    direct: Option<Alignment>,
) -> Result<(u64, u64), DiskError> {
    let end = match asked {
        Some(0) => return Err(DiskError::ZeroSize),
        Some(asked) if asked > there => {
            return Err(DiskError::Beyond { path: path.into(), size: there, asked });
        }
        Some(asked) => asked,
        None if there == 0 => return Err(DiskError::Empty { path: path.into() }),
        None => there,
    };
    let block = u64::from(geometry.logical_block);
    let capacity = if options.readonly && direct.is_none() { filled(end, block) } else { end };
    let name = path.display().to_string();
    let smaller =
        if options.block_size.is_some_and(|block| block > 512) { ", or use block-size=512" } else { "" };
    check_size(&name, capacity, block, if options.readonly { smaller } else { ", or add `readonly`" })?;
    if let Some(direct) = direct {
        check_size(&name, capacity, direct.offset as u64, ", or leave out `direct`")?;
    }
    Ok((capacity, end))
}

/// `size` with a last block that zeroes fill, as images that are only read may have it.
pub(super) fn filled(size: u64, block: u64) -> u64 {
    size.checked_next_multiple_of(block).unwrap_or(size)
}

/// `or`: what else helps if the size is not a multiple of the block.
pub(super) fn check_size(name: &str, size: u64, block: u64, or: &'static str) -> Result<(), DiskError> {
    match size {
        _ if i64::try_from(size).is_err() => Err(DiskError::TooBig { size }),
        _ if !size.is_multiple_of(block) => {
            Err(DiskError::PartialBlock { name: name.into(), size, block, or })
        }
        _ => Ok(()),
    }
}
