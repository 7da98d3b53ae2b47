//! The driver's side of a split virtqueue (virtio 1.2, 2.7), or of a packed one (`packed`). One CPU uses a queue at a time.
//!
//! Slot s of a block owns the descriptors from s * chain on (or the indirect table s), one header and one status byte.
//! So nothing is allocated while a block runs.

use crate::abi::*;
use crate::cpu::{self, load, store};
use crate::device::{F_EVENT_IDX, F_INDIRECT, F_NOTIFICATION_DATA, F_PACKED};
use crate::global::Global;
use crate::packed::{self, Packed, Places};

const AVAIL: u64 = 0x4000;
/// Packed: one u16 per slot, see `Places`.
const STAGED: u64 = 0x4800;
const USED: u64 = 0x5000;
const HEADERS: u64 = 0x8000;
const STATUSES: u64 = 0xa000;
const INDIRECT: u64 = 0xb000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const TABLE: u16 = 4;

/// The driver's state of a queue.
#[derive(Clone, Copy)]
pub struct Queue {
    pub index: u16,
    pub size: u16,
    /// The features that the driver accepted.
    pub features: u64,
    pub event_idx: bool,
    pub indirect: bool,
    /// The ring is packed: `lap` is used instead of `avail`, `published` and `used`.
    pub packed: bool,
    lap: Packed,
    pub vector: u32,
    base: u64,
    pub notify: u64,
    notify_is_port: bool,
    /// A kick carries the queue and the available index (VIRTIO_F_NOTIFICATION_DATA, 4.1.5.2).
    kick_data: bool,
    avail: u16,
    published: u16,
    used: u16,
}

const NONE: Queue = Queue {
    index: 0,
    size: 0,
    features: 0,
    event_idx: false,
    indirect: false,
    packed: false,
    lap: packed::NONE,
    vector: 0,
    base: 0,
    notify: 0,
    notify_is_port: false,
    kick_data: false,
    avail: 0,
    published: 0,
    used: 0,
};

static QUEUES: Global<[Queue; MAX_DEVICES * MAX_QUEUES]> = Global::new([NONE; MAX_DEVICES * MAX_QUEUES]);

impl Queue {
    /// Makes the rings and configures the device's queue (4.1.5.1.3). Returns the size in use, or None if the device has no
    /// such queue.
    pub fn create(job: &GuestJob, info: &DeviceInfo, features: u64, index: u16, vector: u32) -> Option<u16> {
        let common = info.common;
        store(common + 22, index);
        let most: u16 = load(common + 24);
        if most == 0 {
            return None;
        }
        let wanted = if job.queue_size == 0 { 256 } else { job.queue_size.min(MAX_QUEUE_SIZE as u32) as u16 };
        let size = wanted.min(most);
        let which = job.device as usize * MAX_QUEUES + index as usize;
        let base = QUEUE_MEMORY + which as u64 * QUEUE_STRIDE;
        for word in 0..QUEUE_STRIDE / 8 {
            store(base + word * 8, 0u64);
        }
        store(common + 24, size);
        let msix = job.flags & flag::INTX == 0;
        store(common + 26, if msix { index + 1 } else { 0xffff });
        for (register, address) in [(32, base), (40, base + AVAIL), (48, base + USED)] {
            store(common + register, address as u32);
            store(common + register + 4, 0u32);
        }
        let offset: u16 = load(common + 30);
        store(common + 28, 1u16);
        let event_idx = features & F_EVENT_IDX != 0;
        let places =
            Places { ring: base, driver: base + AVAIL, device: base + USED, staged: base + STAGED };
        let queue = Queue {
            index,
            size,
            features,
            event_idx,
            indirect: features & F_INDIRECT != 0,
            packed: features & F_PACKED != 0,
            lap: Packed::new(places, size, event_idx),
            vector: if msix { vector + index as u32 } else { vector },
            base,
            notify: info.notify + offset as u64 * info.notify_multiplier as u64,
            notify_is_port: info.notify_is_port != 0,
            kick_data: features & F_NOTIFICATION_DATA != 0 && job.flags & flag::SHORT_KICK == 0,
            ..NONE
        };
        // SAFETY: SETUP of a device runs alone; no block of that device runs meanwhile.
        unsafe { (*QUEUES.get())[which] = queue };
        Some(size)
    }

    /// Returns the queue, for one block.
    pub fn get(device: u32, queue: u32) -> &'static mut Queue {
        let which = (device as usize * MAX_QUEUES + queue as usize) % (MAX_DEVICES * MAX_QUEUES);
        // SAFETY: the job protocol gives a queue to one CPU at a time.
        unsafe { &mut (*QUEUES.get())[which] }
    }

    pub fn header(&self, slot: usize) -> u64 {
        self.base + HEADERS + 16 * slot as u64
    }

    pub fn status(&self, slot: usize) -> u64 {
        self.base + STATUSES + 16 * slot as u64
    }

    pub fn table(&self, slot: usize) -> u64 {
        self.base + INDIRECT + 128 * slot as u64
    }

    /// Writes descriptor `at` of the table at `table` (the ring's own: `ring()`).
    pub fn descriptor(table: u64, at: u16, address: u64, length: u32, flags: u16, next: u16) {
        let to = table + 16 * at as u64;
        store(to, address);
        store(to + 8, length as u64 | (flags as u64) << 32 | (next as u64) << 48);
    }

    /// Does the same for a packed ring or its tables: the buffer ID, then the flags.
    pub fn packed_descriptor(table: u64, at: u16, address: u64, length: u32, flags: u16, id: u16) {
        let to = table + 16 * at as u64;
        store(to, address);
        store(to + 8, length as u64 | (id as u64) << 32 | (flags as u64) << 48);
    }

    /// Packed: records for `push` how many descriptors of `slot` are in its table.
    pub fn stage(&self, slot: u16, count: u16, indirect: bool) {
        self.lap.stage(slot, count, indirect);
    }

    /// Returns the address of the descriptor table.
    pub fn ring(&self) -> u64 {
        self.base
    }

    /// Puts a head into the available ring, or the staged descriptors of slot `head` into a packed ring. The device sees
    /// neither before `publish`.
    pub fn push(&mut self, head: u16) {
        if self.packed {
            let table = self.table(head as usize);
            return self.lap.push(head, table);
        }
        store(self.base + AVAIL + 4 + 2 * (self.avail % self.size) as u64, head);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Advances the index that `publish` will store beyond the number of entries (an attack).
    pub fn jump(&mut self, by: u16) {
        self.avail = self.avail.wrapping_add(by);
    }

    /// Publishes what was pushed. Returns whether the device wants a kick.
    pub fn publish(&mut self) -> bool {
        if self.packed {
            return self.lap.publish();
        }
        let (old, new) = (self.published, self.avail);
        store(self.base + AVAIL + 2, new);
        self.published = new;
        // StoreLoad, 2.7.13.3 and 2.7.13.4: the device writes avail_event (or used.flags) and then reads
        // avail.idx; we wrote avail.idx and now read avail_event. Without the fence both may read old values.
        cpu::fence();
        if self.event_idx {
            let event: u16 = load(self.base + USED + 4 + 8 * self.size as u64);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            load::<u16>(self.base + USED) & 1 == 0
        }
    }

    /// Stores to the notify register.
    #[inline(always)]
    pub fn kick(&self) {
        let next = if self.packed { self.lap.next() } else { self.published };
        let data = self.index as u32 | (next as u32) << 16;
        match (self.notify_is_port, self.kick_data) {
            (false, false) => store(self.notify, self.index),
            (false, true) => store(self.notify, data),
            (true, false) => cpu::out16(self.notify as u16, self.index),
            (true, true) => cpu::out32(self.notify as u16, data),
        }
    }

    /// Asks for an interrupt with the next used entry that has not been taken.
    pub fn arm(&self) {
        if self.packed {
            return self.lap.arm();
        }
        if self.event_idx {
            store(self.base + AVAIL + 4 + 2 * self.size as u64, self.used);
        } else {
            store(self.base + AVAIL, 0u16);
        }
        // StoreLoad, 2.7.10.1: write used_event before `has_used` reads used.idx. The device does the two in the opposite
        // order.
        cpu::fence();
    }

    /// Asks for no interrupt. With EVENT_IDX it must be repeated within 65535 used entries.
    pub fn disarm(&self) {
        if self.packed {
            return self.lap.disarm();
        }
        if self.event_idx {
            store(self.base + AVAIL + 4 + 2 * self.size as u64, self.used.wrapping_sub(1));
        } else {
            store(self.base + AVAIL, 1u16);
        }
    }

    #[inline(always)]
    pub fn has_used(&self) -> bool {
        if self.packed {
            return self.lap.has_used();
        }
        load::<u16>(self.base + USED + 2) != self.used
    }

    /// Takes the next used entry: (head, bytes written).
    pub fn pop(&mut self) -> Option<(u32, u32)> {
        if self.packed {
            return self.lap.pop();
        }
        if !self.has_used() {
            return None;
        }
        let at = self.base + USED + 4 + 8 * (self.used % self.size) as u64;
        self.used = self.used.wrapping_add(1);
        Some((load(at), load(at + 4)))
    }
}
