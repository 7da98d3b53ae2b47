use vm_memory::GuestMemoryMmap;

use super::super::area::resolve;
use super::error::RingError;

// Descriptor flags, virtio 1.2, 2.7.5 and 2.8.5: the same in both rings.
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// The longest indirect table that is accepted, in entries. A longer one would only cost time and memory.
const MAX_INDIRECT: u32 = 1024;

/// What a ring needs in order to return a chain to the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Split ring: the index of the first descriptor. Packed ring: the buffer ID.
    pub id: u16,
    /// Packed ring: how many descriptors of the ring the chain takes up. Split ring: 0, unused.
    pub descriptors: u16,
}

/// The buffers of one request, as host addresses.
#[derive(Debug, Default)]
pub struct Chain {
    /// What [`Ring::push`](super::Ring::push) takes back.
    pub head: Head,
    /// The buffers that the device reads.
    pub readable: Vec<libc::iovec>,
    /// The buffers that the device writes.
    pub writable: Vec<libc::iovec>,
}

// SAFETY: the pointers lead into guest memory, which any thread may access; the holder of a chain keeps it alive.
unsafe impl Send for Chain {}

impl Chain {
    pub(super) fn begin(&mut self, head: Head) {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
    }

    /// Adds the buffer that `desc` describes.
    pub(super) fn add(&mut self, memory: &GuestMemoryMmap, desc: &Descriptor) -> Result<(), RingError> {
        let writable = desc.flags & WRITE != 0;
        if !writable && !self.writable.is_empty() {
            return Err(RingError::Order);
        }
        if desc.len == 0 {
            return Ok(());
        }
        let base = resolve(memory, desc.addr, desc.len as usize).ok_or(RingError::Address)?;
        let buffer = libc::iovec { iov_base: base.cast(), iov_len: desc.len as usize };
        if writable { &mut self.writable } else { &mut self.readable }.push(buffer);
        Ok(())
    }
}

/// A copy of a descriptor.
pub(super) struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    /// Split ring: the next descriptor of the chain. Packed ring: the buffer ID.
    pub link: u16,
}

impl Descriptor {
    /// `struct virtq_desc`: flags, then next.
    pub fn split([addr, rest]: [u64; 2]) -> Descriptor {
        let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
        Descriptor { addr, len: rest as u32, flags: (rest >> 32) as u16, link: (rest >> 48) as u16 }
    }

    /// `struct pvirtq_desc`: buffer ID, then flags.
    pub fn packed([addr, rest]: [u64; 2]) -> Descriptor {
        let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
        Descriptor { addr, len: rest as u32, flags: (rest >> 48) as u16, link: (rest >> 32) as u16 }
    }
}

/// A table of indirect descriptors in guest memory.
pub(super) struct Table {
    base: *const u8,
    len: u32,
}

impl Table {
    /// Resolves the table that `desc` describes; `negotiated`: the driver accepted VIRTIO_F_INDIRECT_DESC.
    pub fn new(memory: &GuestMemoryMmap, desc: &Descriptor, negotiated: bool) -> Result<Table, RingError> {
        let len = desc.len / 16;
        // virtio 1.2, 2.7.5.3.1 and 2.8.19: it must be negotiated and must not have NEXT.
        let allowed = negotiated && desc.flags & NEXT == 0;
        if !allowed || len == 0 || !desc.len.is_multiple_of(16) || len > MAX_INDIRECT {
            return Err(RingError::Indirect);
        }
        let base = resolve(memory, desc.addr, desc.len as usize).ok_or(RingError::Address)?;
        Ok(Table { base, len })
    }

    /// Returns the number of entries, at least 1.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns a copy of entry `index`, which is below [`Table::len`].
    pub fn get(&self, index: u32) -> [u64; 2] {
        assert!(index < self.len);
        // SAFETY: index < len, and `base` has 16 * len bytes of RAM (`new`). Tables need no alignment (virtio 1.2,
        // 2.7.5.3), so each descriptor is copied instead of borrowed.
        unsafe { read_words(self.base.add(16 * index as usize)) }
    }
}

/// Reads 16 bytes exactly once. The guest may change them at any time, and the checked value must be the used value.
///
/// # Safety
/// `at` has 16 bytes of guest memory.
unsafe fn read_words(at: *const u8) -> [u64; 2] {
    let words = at.cast::<u64>();
    if words.is_aligned() {
        // SAFETY: as the caller promises; the pointer is aligned.
        return unsafe { [words.read_volatile(), words.add(1).read_volatile()] };
    }
    // SAFETY: as the caller promises; bytes need no alignment.
    let bytes = unsafe { at.cast::<[[u8; 8]; 2]>().read_volatile() };
    bytes.map(u64::from_ne_bytes)
}
