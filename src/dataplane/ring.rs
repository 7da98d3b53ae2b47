use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestMemoryMmap;

use super::QueueLayout;
use super::area::{Area, resolve};
use super::fences::{ask_for_kicks, need_event, publish};

/// How the driver broke the rules of the ring. The device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring is not in RAM, or not aligned.
    #[error("a ring lies outside guest memory or is misaligned")]
    Layout,
    /// The available index is more than one queue size ahead.
    #[error("the available index ran more than one queue size ahead")]
    AvailIndex,
    /// A descriptor index is beyond the table.
    #[error("a descriptor index is beyond the table")]
    DescriptorIndex,
    /// A chain is longer than its table, so it loops.
    #[error("a descriptor chain loops")]
    Loop,
    /// An indirect descriptor was not negotiated, is nested, has NEXT set, or has a bad length.
    #[error("an indirect descriptor breaks the rules")]
    Indirect,
    /// A buffer is outside guest memory.
    #[error("a buffer lies outside guest memory")]
    Address,
    /// A device-readable buffer follows a device-writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// The chain has no room for the header or the status byte.
    #[error("a request has no header or no status byte")]
    Shape,
}

// Descriptor flags and ring flags, virtio 1.2, 2.7.5 to 2.7.8.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// The longest indirect table that is accepted, in entries. A longer one would only cost time and memory.
const MAX_INDIRECT: u32 = 1024;

/// The buffers of one request, as host addresses.
#[derive(Debug, Default)]
pub struct Chain {
    /// The head index, which the used ring returns to the driver.
    pub head: u16,
    /// The buffers that the device reads.
    pub readable: Vec<libc::iovec>,
    /// The buffers that the device writes.
    pub writable: Vec<libc::iovec>,
}

// SAFETY: the pointers lead into guest memory, which any thread may access; the holder of a chain keeps it alive.
unsafe impl Send for Chain {}

/// The device's side of one split virtqueue.
///
/// One thread owns it. `pop` takes requests and `push` adds completions. `publish` shows all completions to the driver
/// with one store of the index, and returns whether the driver wants an interrupt.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<GuestMemoryMmap>,
    layout: QueueLayout,
    desc: Area,
    avail: Area,
    used: Area,
    next_avail: u16,
    next_used: u16,
    /// The used index that the driver can see.
    published: u16,
}

impl Ring {
    /// Resolves the rings of a new queue to host addresses.
    ///
    /// # Errors
    /// [`RingError::Layout`].
    pub fn new(memory: Arc<GuestMemoryMmap>, layout: QueueLayout) -> Result<Ring, RingError> {
        if !layout.size.is_power_of_two() {
            return Err(RingError::Layout);
        }
        let size = usize::from(layout.size);
        let area = |addr, len, align| Area::new(&memory, addr, len, align).ok_or(RingError::Layout);
        Ok(Ring {
            desc: area(layout.desc, 16 * size, 16)?,
            // flags, index, entries, used_event
            avail: area(layout.avail, 2 * size + 6, 2)?,
            // flags, index, entries, avail_event
            used: area(layout.used, 8 * size + 6, 4)?,
            memory,
            layout,
            next_avail: 0,
            next_used: 0,
            published: 0,
        })
    }

    /// Returns the number of entries.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Returns the next available and the next used index, for display.
    pub fn indices(&self) -> (u16, u16) {
        (self.next_avail, self.next_used)
    }

    /// Returns whether the driver has made something available.
    pub fn has_avail(&self) -> bool {
        self.avail_index(Ordering::Relaxed) != self.next_avail
    }

    fn avail_index(&self, order: Ordering) -> u16 {
        u16::from_le(self.avail.u16(2).load(order))
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.layout.size - 1))
    }

    /// Takes the next request into `chain`. Returns `false` if there is none.
    ///
    /// # Errors
    /// The driver broke a rule of the ring. Take nothing more from it.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, RingError> {
        // Acquire: pairs with the driver's release store of avail.idx. The entry and its descriptors are read after the
        // index that announces them.
        let ahead = self.avail_index(Ordering::Acquire).wrapping_sub(self.next_avail);
        if ahead == 0 {
            return Ok(false);
        }
        if ahead > self.layout.size {
            return Err(RingError::AvailIndex);
        }
        let entry = self.avail.u16(4 + 2 * self.slot(self.next_avail));
        let head = u16::from_le(entry.load(Ordering::Relaxed));
        chain.head = head;
        chain.readable.clear();
        chain.writable.clear();
        self.walk(head, chain)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        let (mut index, mut left) = (head, self.layout.size);
        loop {
            if index >= self.layout.size {
                return Err(RingError::DescriptorIndex);
            }
            let desc = Descriptor::from(self.desc.pair(16 * usize::from(index)));
            if desc.flags & INDIRECT != 0 {
                // virtio 1.2, 2.7.5.3.1: an indirect descriptor must be negotiated and must not have NEXT.
                if !self.layout.indirect || desc.flags & NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                return self.walk_indirect(&desc, chain);
            }
            self.buffer(&desc, chain)?;
            if desc.flags & NEXT == 0 {
                return Ok(());
            }
            left -= 1;
            if left == 0 {
                return Err(RingError::Loop);
            }
            index = desc.next;
        }
    }

    fn walk_indirect(&self, table: &Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        let count = table.len / 16;
        if count == 0 || !table.len.is_multiple_of(16) || count > MAX_INDIRECT {
            return Err(RingError::Indirect);
        }
        // Indirect tables need no alignment (virtio 1.2, 2.7.5.3), so copy each descriptor instead of borrowing it.
        let base = resolve(&self.memory, table.addr, table.len as usize).ok_or(RingError::Address)?;
        let mut index = 0u32;
        for _ in 0..count {
            // SAFETY: index < count, and `base` has 16 * count bytes of RAM (`resolve`).
            let desc = Descriptor::from(unsafe { read_words(base.add(16 * index as usize)) });
            if desc.flags & INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            self.buffer(&desc, chain)?;
            if desc.flags & NEXT == 0 {
                return Ok(());
            }
            index = u32::from(desc.next);
            if index >= count {
                return Err(RingError::DescriptorIndex);
            }
        }
        Err(RingError::Loop)
    }

    fn buffer(&self, desc: &Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        let writable = desc.flags & WRITE != 0;
        if !writable && !chain.writable.is_empty() {
            return Err(RingError::Order);
        }
        if desc.len == 0 {
            return Ok(());
        }
        let base = resolve(&self.memory, desc.addr, desc.len as usize).ok_or(RingError::Address)?;
        let buffer = libc::iovec { iov_base: base.cast(), iov_len: desc.len as usize };
        if writable { &mut chain.writable } else { &mut chain.readable }.push(buffer);
        Ok(())
    }

    /// Adds a completion to the used ring. The driver sees it after the next [`Ring::publish`].
    pub fn push(&mut self, head: u16, written: u32) {
        let offset = 4 + 8 * self.slot(self.next_used);
        self.used.u32(offset).store(u32::from(head).to_le(), Ordering::Relaxed);
        self.used.u32(offset + 4).store(written.to_le(), Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Returns whether there are completions that are not published.
    pub fn has_unpublished(&self) -> bool {
        self.next_used != self.published
    }

    /// Returns the number of completions that are not published.
    pub fn unpublished(&self) -> u16 {
        self.next_used.wrapping_sub(self.published)
    }

    /// Publishes all completions with one store of the index. Returns whether the driver wants an interrupt for them
    /// (virtio 1.2, 2.7.7).
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        self.published = new;
        let threshold =
            if self.layout.event_idx { self.avail.u16(4 + 2 * self.size_usize()) } else { self.avail.u16(0) };
        let threshold = publish(self.used.u16(2), new, threshold);
        if self.layout.event_idx {
            need_event(threshold, old, new)
        } else {
            threshold & AVAIL_NO_INTERRUPT == 0
        }
    }

    fn size_usize(&self) -> usize {
        usize::from(self.layout.size)
    }

    /// Asks the driver not to kick. With EVENT_IDX there is nothing to do: while avail_event does not move, the driver
    /// sends no further kick.
    pub fn disable_kicks(&mut self) {
        if !self.layout.event_idx {
            self.used.u16(0).store(USED_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the driver to kick for the next request. Returns whether a request came before the driver could see that.
    /// If so, drain the ring again instead of sleeping.
    pub fn enable_kicks(&mut self) -> bool {
        let avail = self.avail.u16(2);
        let index = if self.layout.event_idx {
            ask_for_kicks(self.used.u16(4 + 8 * self.size_usize()), self.next_avail, avail)
        } else {
            ask_for_kicks(self.used.u16(0), 0, avail)
        };
        index != self.next_avail
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

struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl From<[u64; 2]> for Descriptor {
    fn from([addr, rest]: [u64; 2]) -> Descriptor {
        let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
        Descriptor { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
