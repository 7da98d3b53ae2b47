use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestMemoryMmap;

use super::super::QueueLayout;
use super::super::area::Area;
use super::super::fences::{ask_for_kicks, need_event, publish};
use super::chain::{Chain, Descriptor, Head, INDIRECT, NEXT, Table};
use super::error::RingError;

// Flags of the available and of the used ring, virtio 1.2, 2.7.6 and 2.7.8.
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// The device's side of one split virtqueue.
///
/// One thread owns it. `pop` takes requests and `push` adds completions. `publish` shows all completions to the driver
/// with one store of the index, and returns whether the driver wants an interrupt.
#[derive(Debug)]
pub struct SplitRing {
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

impl SplitRing {
    /// Resolves the rings of a new queue to host addresses.
    ///
    /// # Errors
    /// [`RingError::Layout`].
    pub fn new(memory: Arc<GuestMemoryMmap>, layout: QueueLayout) -> Result<SplitRing, RingError> {
        if !layout.size.is_power_of_two() {
            return Err(RingError::Layout);
        }
        let size = usize::from(layout.size);
        let area = |addr, len, align| Area::new(&memory, addr, len, align).ok_or(RingError::Layout);
        Ok(SplitRing {
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
        chain.begin(Head { id: head, descriptors: 0 });
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
            let desc = Descriptor::split(self.desc.pair(16 * usize::from(index)));
            if desc.flags & INDIRECT != 0 {
                return self.walk_indirect(&desc, chain);
            }
            chain.add(&self.memory, &desc)?;
            if desc.flags & NEXT == 0 {
                return Ok(());
            }
            left -= 1;
            if left == 0 {
                return Err(RingError::Loop);
            }
            index = desc.link;
        }
    }

    fn walk_indirect(&self, table: &Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        let table = Table::new(&self.memory, table, self.layout.indirect)?;
        let mut index = 0;
        for _ in 0..table.len() {
            let desc = Descriptor::split(table.get(index));
            if desc.flags & INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            chain.add(&self.memory, &desc)?;
            if desc.flags & NEXT == 0 {
                return Ok(());
            }
            index = u32::from(desc.link);
            if index >= table.len() {
                return Err(RingError::DescriptorIndex);
            }
        }
        Err(RingError::Loop)
    }

    /// Adds a completion to the used ring. The driver sees it after the next [`SplitRing::publish`].
    pub fn push(&mut self, head: Head, written: u32) {
        let offset = 4 + 8 * self.slot(self.next_used);
        self.used.u32(offset).store(u32::from(head.id).to_le(), Ordering::Relaxed);
        self.used.u32(offset + 4).store(written.to_le(), Ordering::Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
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

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
