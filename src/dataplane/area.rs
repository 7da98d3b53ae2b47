use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A stretch of guest memory, resolved once, so that the hot path never looks a region up for its rings.
///
/// The guest writes it at any time; every access is atomic or volatile.
#[derive(Debug)]
pub struct Area {
    base: *mut u8,
    len: usize,
    /// Keeps the mapping alive.
    _memory: Arc<GuestMemoryMmap>,
}

// SAFETY: the pointer is to a shared mapping that lives as long as `_memory`; accesses are atomic or volatile.
unsafe impl Send for Area {}

impl Area {
    /// Resolves `len` bytes at guest-physical `addr`; `None` unless all of it is RAM and `addr` is a multiple of
    /// `align`.
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

    /// The 16-bit word at `offset`. Offsets come from ring indices, never unchecked from the guest.
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: in range and aligned (`at`, and the alignment demanded by `new`); atomic, so shared mutation is fine.
        unsafe { AtomicU16::from_ptr(self.at(offset)) }
    }

    /// The 32-bit word at `offset`.
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    /// A copy of the 16 bytes at `offset` as two little-endian words.
    pub fn pair(&self, offset: usize) -> [u64; 2] {
        // SAFETY: as above; volatile because the guest may write meanwhile.
        unsafe { self.at::<[u64; 2]>(offset).read_volatile() }
    }
}

/// The host address of `len` bytes at guest-physical `addr`, `None` unless all of it is RAM in one piece.
pub fn resolve(memory: &GuestMemoryMmap, addr: u64, len: usize) -> Option<*mut u8> {
    let slice = memory.get_slice(GuestAddress(addr), len).ok()?;
    Some(slice.ptr_guard_mut().as_ptr())
}
