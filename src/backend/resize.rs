use std::sync::atomic::Ordering;

use super::DiskError;
use super::disk::{Disk, Store, failed};
use super::measure::{check_size, extent, size_of};
use crate::host::Locked;

impl Disk {
    /// Takes over the present size of the file or block device, or its first `asked` bytes; a disk of kind `null` has
    /// `asked` bytes. `tell` gets the new size in sectors, before any other resize begins. Requests that reach beyond a
    /// smaller size fail from then on.
    ///
    /// # Errors
    /// The size does not fit the file or the blocks, the file cannot be measured, or the backend has a fixed size (`mem`). The
    /// disk keeps its size.
    pub fn resize(&self, asked: Option<u64>, tell: impl FnOnce(u64)) -> Result<(), DiskError> {
        let _one = self.resizing.locked();
        let (kind, block) = (self.options.kind, u64::from(self.geometry.logical_block));
        match (&self.store, &self.options.path) {
            (Store::File(file), Some(path)) => {
                let there = size_of(&file.file).map_err(|e| failed("read the size of", path, e))?;
                let (size, end) = extent(&self.options, path, there, asked, &self.geometry, file.direct)?;
                file.set_size(size, end);
            }
            (Store::Null(size), _) => {
                let asked = asked.ok_or(DiskError::NeedsSize { kind })?;
                if asked == 0 {
                    return Err(DiskError::ZeroSize);
                }
                check_size("size=", asked, block, "")?;
                size.store(asked, Ordering::Relaxed);
            }
            _ => return Err(DiskError::FixedSize { kind }),
        }
        tell(self.capacity_sectors());
        Ok(())
    }
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
