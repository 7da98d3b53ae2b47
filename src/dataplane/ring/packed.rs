use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestMemoryMmap;

use super::super::QueueLayout;
use super::super::area::Area;
use super::super::fences::{ask_for_kicks_packed, event_in_lap, need_event, publish_packed};
use super::chain::{Chain, Descriptor, Head, INDIRECT, NEXT, Table, WRITE};
use super::error::RingError;

// Further descriptor flags, virtio 1.2, 2.8.1.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

// Flags of the event suppression structures, virtio 1.2, 2.8.10.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;

/// A place in the ring, and the wrap counter of the side that goes there (virtio 1.2, 2.8.1). The counter starts at 1 and
/// flips with each lap.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u16,
    wrap: bool,
}

impl Position {
    const START: Position = Position { offset: 0, wrap: true };

    /// Goes on by `by` descriptors, at most a lap.
    fn advance(&mut self, by: u16, size: u16) {
        // Both are at most 32768.
        let next = u32::from(self.offset) + u32::from(by);
        let wraps = next >= u32::from(size);
        self.offset = (next - if wraps { u32::from(size) } else { 0 }) as u16;
        self.wrap ^= wraps;
    }

    /// Offset in bits 0 to 14, wrap counter in bit 15, as in the event suppression structures.
    fn word(self) -> u16 {
        self.offset | u16::from(self.wrap) << 15
    }
}

/// The device's side of one packed virtqueue (virtio 1.2, 2.8): one ring of descriptors, which the driver makes available
/// and the device overwrites with its completions. Each side goes round the ring on its own.
#[derive(Debug)]
pub struct PackedRing {
    memory: Arc<GuestMemoryMmap>,
    layout: QueueLayout,
    desc: Area,
    driver_event: Area,
    device_event: Area,
    next_avail: Position,
    next_used: Position,
    /// Descriptors that were taken and that the driver does not have back, at most the ring's size.
    taken: u16,
    /// Completions that the driver cannot see.
    unpublished: u16,
    /// Of the descriptors in `taken`, those of these completions.
    stepped: u16,
    /// The first of them: its place, and the flags that will show it and all others.
    first: (u16, u16),
}

impl PackedRing {
    pub fn new(memory: Arc<GuestMemoryMmap>, layout: QueueLayout) -> Result<PackedRing, RingError> {
        // The size need not be a power of two (virtio 1.2, 2.8.10.1); bit 15 of a position is the wrap counter.
        if !(1..=1 << 15).contains(&layout.size) {
            return Err(RingError::Layout);
        }
        let area = |addr, len, align| Area::new(&memory, addr, len, align).ok_or(RingError::Layout);
        Ok(PackedRing {
            desc: area(layout.desc, 16 * usize::from(layout.size), 16)?,
            driver_event: area(layout.avail, 4, 4)?,
            device_event: area(layout.used, 4, 4)?,
            memory,
            layout,
            next_avail: Position::START,
            next_used: Position::START,
            taken: 0,
            unpublished: 0,
            stepped: 0,
            first: (0, 0),
        })
    }

    pub fn size(&self) -> u16 {
        self.layout.size
    }

    pub fn indices(&self) -> (u16, u16) {
        (self.next_avail.word(), self.next_used.word())
    }

    /// Whether `flags` make the descriptor at the next position available: AVAIL is the wrap counter, USED is not.
    fn is_avail(&self, flags: u16) -> bool {
        let wrap = self.next_avail.wrap;
        (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
    }

    fn flags(&self, order: Ordering) -> u16 {
        u16::from_le(self.desc.u16(Self::at(self.next_avail.offset) + 14).load(order))
    }

    fn at(offset: u16) -> usize {
        16 * usize::from(offset)
    }

    pub fn has_avail(&self) -> bool {
        self.is_avail(self.flags(Ordering::Relaxed))
    }

    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, RingError> {
        // Acquire: pairs with the driver's release store of the first descriptor's flags, its last store. The chain is
        // read after the flags that announce it.
        if !self.is_avail(self.flags(Ordering::Acquire)) {
            return Ok(false);
        }
        chain.begin(Head::default());
        chain.head = self.walk(chain)?;
        self.taken += chain.head.descriptors;
        self.next_avail.advance(chain.head.descriptors, self.layout.size);
        Ok(true)
    }

    /// Reads the chain at the next position. Its descriptors follow each other round the ring; the last one has the
    /// buffer ID. Only the first one's flags say that it is available (virtio 1.2, 2.8.6).
    fn walk(&self, chain: &mut Chain) -> Result<Head, RingError> {
        let mut at = self.next_avail;
        // A chain may not reach a descriptor that the driver does not have back, and so cannot be longer than the ring.
        for descriptors in 1..=self.layout.size - self.taken {
            let desc = Descriptor::packed(self.desc.pair(Self::at(at.offset)));
            if desc.flags & INDIRECT != 0 {
                self.walk_indirect(&desc, chain)?;
            } else {
                chain.add(&self.memory, &desc)?;
            }
            if desc.flags & NEXT == 0 {
                return Ok(Head { id: desc.link, descriptors });
            }
            at.advance(1, self.layout.size);
        }
        Err(RingError::Overrun)
    }

    /// All entries of an indirect table belong to the chain, in their order; NEXT means nothing in it (virtio 1.2, 2.8.7).
    fn walk_indirect(&self, table: &Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        let table = Table::new(&self.memory, table, self.layout.indirect)?;
        for index in 0..table.len() {
            let desc = Descriptor::packed(table.get(index));
            if desc.flags & INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            chain.add(&self.memory, &desc)?;
        }
        Ok(())
    }

    /// Writes the completion over the next descriptors that the device has taken, whosever they were (virtio 1.2, 2.8.4).
    /// The flags of the first one since the last publication are kept back: a driver looks at the descriptors in their order, so
    /// it sees none of those behind.
    pub fn push(&mut self, head: Head, written: u32) {
        let Position { offset, wrap } = self.next_used;
        let at = Self::at(offset);
        self.desc.u32(at + 8).store(written.to_le(), Ordering::Relaxed);
        self.desc.u16(at + 12).store(head.id.to_le(), Ordering::Relaxed);
        // Both bits are the wrap counter; WRITE says that the length counts.
        let flags = if wrap { AVAIL | USED } else { 0 } | if written > 0 { WRITE } else { 0 };
        match self.unpublished {
            0 => self.first = (offset, flags),
            _ => self.desc.u16(at + 14).store(flags.to_le(), Ordering::Relaxed),
        }
        self.next_used.advance(head.descriptors, self.layout.size);
        self.unpublished += 1;
        self.stepped += head.descriptors;
    }

    pub fn unpublished(&self) -> u16 {
        self.unpublished
    }

    pub fn publish(&mut self) -> bool {
        if self.unpublished == 0 {
            return false;
        }
        let (offset, flags) = self.first;
        let event = publish_packed(self.desc.u16(Self::at(offset) + 14), flags, self.driver_event.u32(0));
        let (position, how) = (event as u16, (event >> 16) as u16);
        let new = self.next_used;
        let old = new.offset.wrapping_sub(self.stepped);
        self.taken -= self.stepped;
        (self.unpublished, self.stepped) = (0, 0);
        if self.layout.event_idx && how == DESC {
            need_event(event_in_lap(position, new.wrap, self.layout.size), old, new.offset)
        } else {
            how != DISABLE
        }
    }

    /// Unlike a split ring's, an event position that does not move comes round again after two laps, so kicks are switched off.
    pub fn disable_kicks(&mut self) {
        let event = u32::from(DISABLE) << 16;
        self.device_event.u32(0).store(event.to_le(), Ordering::Relaxed);
    }

    pub fn enable_kicks(&mut self) -> bool {
        let how = if self.layout.event_idx { DESC } else { ENABLE };
        let event = u32::from(how) << 16 | u32::from(self.next_avail.word());
        let flags = self.desc.u16(Self::at(self.next_avail.offset) + 14);
        self.is_avail(ask_for_kicks_packed(self.device_event.u32(0), event, flags))
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
