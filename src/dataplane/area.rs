use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A range of guest memory, resolved to a host address once, so that the hot path looks up no region for its rings.
///
/// The guest may write it at any time, so every access is atomic or volatile.
#[derive(Debug)]
pub struct Area {
    base: *mut u8,
    len: usize,
    /// Keeps the mapping alive.
    _memory: Arc<GuestMemoryMmap>,
}

// SAFETY: the pointer leads into a shared mapping that lives as long as `_memory`; accesses are atomic or volatile.
unsafe impl Send for Area {}

impl Area {
    /// Resolves `len` bytes at guest-physical `addr`. Returns `None` unless all of them are RAM and `addr` is a
    /// multiple of `align`.
    pub fn new(memory: &Arc<GuestMemoryMmap>, addr: u64, len: usize, align: u64) -> Option<Area> {
        if !addr.is_multiple_of(align) {
            return None;
        }
        let base = resolve(memory, addr, len)?;
        Some(Area { base, len, _memory: memory.clone() })
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.len);
        // SAFETY: within the area, by the line above.
        unsafe { self.base.add(offset).cast() }
    }

    /// Returns the 16-bit word at `offset`. The offset comes from a ring index, never unchecked from the guest.
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: in range and aligned (`at`, and the alignment demanded by `new`); atomic, so shared mutation is fine.
        unsafe { AtomicU16::from_ptr(self.at(offset)) }
    }

    /// Returns the 32-bit word at `offset`.
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    /// Returns a copy of the 16 bytes at `offset` as two little-endian words.
    pub fn pair(&self, offset: usize) -> [u64; 2] {
        // SAFETY: as above; volatile because the guest may write meanwhile.
        unsafe { self.at::<[u64; 2]>(offset).read_volatile() }
    }
}

/// Returns the host address of `len` bytes at guest-physical `addr`; `None` unless all of them are RAM in one region.
pub fn resolve(memory: &GuestMemoryMmap, addr: u64, len: usize) -> Option<*mut u8> {
    let slice = memory.get_slice(GuestAddress(addr), len).ok()?;
    Some(slice.ptr_guard_mut().as_ptr())
}
