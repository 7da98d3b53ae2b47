//! A packed virtqueue (virtio 1.2, 2.8), driver side: one ring of descriptors for both sides. The buffer ID of a request is
//! its slot. Descriptors are prepared ("staged") in the slot's indirect table.

use crate::cpu::{self, load, store};
use crate::queue::{NEXT, TABLE, WRITE};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Flags of the event suppression structures (2.8.10), in the upper half of their word.
const DISABLE: u32 = 1 << 16;
const DESC: u32 = 2 << 16;

/// A position in the ring, and the wrap counter at that position (2.8.1).
#[derive(Clone, Copy)]
struct Position {
    offset: u16,
    wrap: bool,
}

const START: Position = Position { offset: 0, wrap: true };

impl Position {
    fn advance(&mut self, by: u16, size: u16) {
        self.offset += by;
        if self.offset >= size {
            self.offset -= size;
            self.wrap = !self.wrap;
        }
    }

    /// Returns it in the format of the event suppression structures.
    fn word(self) -> u16 {
        self.offset | (self.wrap as u16) << 15
    }
}

/// The addresses of a ring's parts.
#[derive(Clone, Copy)]
pub struct Places {
    pub ring: u64,
    /// The driver's and the device's event suppression structure.
    pub driver: u64,
    pub device: u64,
    /// One u16 per slot: how many descriptors are staged; bit 15: in an indirect table.
    pub staged: u64,
}

#[derive(Clone, Copy)]
pub struct Packed {
    places: Places,
    size: u16,
    event_idx: bool,
    avail: Position,
    used: Position,
    /// Descriptors written since the last publication. The flags of the first are not written yet, so the device sees none
    /// of them.
    fresh: u16,
    first: (u64, u16),
}

pub const NONE: Packed = Packed {
    places: Places { ring: 0, driver: 0, device: 0, staged: 0 },
    size: 0,
    event_idx: false,
    avail: START,
    used: START,
    fresh: 0,
    first: (0, 0),
};

impl Packed {
    pub fn new(places: Places, size: u16, event_idx: bool) -> Self {
        Self { places, size, event_idx, ..NONE }
    }

    fn staged(&self, slot: u16) -> u64 {
        self.places.staged + 2 * slot as u64
    }

    /// Records how many descriptors of `slot` are staged.
    pub fn stage(&self, slot: u16, count: u16, indirect: bool) {
        store(self.staged(slot), count | (indirect as u16) << 15);
    }

    /// Writes the staged descriptors of `slot` into the ring, or one descriptor that points to their table.
    pub fn push(&mut self, slot: u16, table: u64) {
        let staged: u16 = load(self.staged(slot));
        let count = staged & 0x7fff;
        if staged >> 15 != 0 {
            return self.put(slot, table, 16 * count as u32, TABLE);
        }
        for at in 0..count as u64 {
            let rest: u64 = load(table + 16 * at + 8);
            self.put(slot, load(table + 16 * at), rest as u32, (rest >> 48) as u16 & (NEXT | WRITE));
        }
    }

    fn put(&mut self, id: u16, address: u64, length: u32, flags: u16) {
        let to = self.places.ring + 16 * self.avail.offset as u64;
        let flags = flags | if self.avail.wrap { AVAIL } else { USED };
        store(to, address);
        store(to + 8, length);
        store(to + 12, id);
        if self.fresh == 0 {
            self.first = (to + 14, flags);
        } else {
            store(to + 14, flags);
        }
        self.fresh += 1;
        self.avail.advance(1, self.size);
    }

    /// Publishes what was pushed by writing the flags of the first descriptor. Returns whether the device wants a kick.
    pub fn publish(&mut self) -> bool {
        let (new, step) = (self.avail, core::mem::take(&mut self.fresh));
        if step == 0 {
            return false;
        }
        store(self.first.0, self.first.1);
        // StoreLoad, 2.8.21.3: the device writes its event structure and then reads the flags; we wrote the flags and now read
        // the structure. Without the fence both may read old values.
        cpu::fence();
        let event: u32 = load(self.places.device);
        if !self.event_idx || event & DESC == 0 {
            return event & DISABLE == 0;
        }
        let offset = event as u16 & 0x7fff;
        let same_lap = (event as u16 >> 15 != 0) == new.wrap;
        let event = if same_lap { offset } else { offset.wrapping_sub(self.size) };
        new.offset.wrapping_sub(event).wrapping_sub(1) < step
    }

    /// Returns the data of a kick with NOTIFICATION_DATA (4.1.5.2).
    pub fn next(&self) -> u16 {
        self.avail.word()
    }

    pub fn arm(&self) {
        let event = if self.event_idx { DESC | self.used.word() as u32 } else { 0 };
        store(self.places.driver, event);
        // StoreLoad: write the structure before `has_used` reads the flags. The device does the two in the opposite order.
        cpu::fence();
    }

    pub fn disarm(&self) {
        store(self.places.driver, DISABLE);
    }

    #[inline(always)]
    pub fn has_used(&self) -> bool {
        let flags: u16 = load(self.places.ring + 16 * self.used.offset as u64 + 14);
        (flags & AVAIL != 0) == self.used.wrap && (flags & USED != 0) == self.used.wrap
    }

    /// Takes the next used descriptor: (buffer ID, bytes written).
    pub fn pop(&mut self) -> Option<(u32, u32)> {
        if !self.has_used() {
            return None;
        }
        let at = self.places.ring + 16 * self.used.offset as u64;
        let (length, id): (u32, u16) = (load(at + 8), load(at + 12));
        let staged: u16 = load(self.staged(id % self.size));
        let steps = if staged >> 15 != 0 { 1 } else { staged.clamp(1, self.size) };
        self.used.advance(steps, self.size);
        Some((id as u32, length))
    }
}
