//! A block's requests in flight: builds each slot's request and checks its completion.

use crate::abi::*;
use crate::cpu::{load, store};
use crate::pattern;
use crate::queue::{NEXT, Queue, TABLE, WRITE};

#[derive(Clone, Copy)]
pub struct Slot {
    pub start: u64,
    pub kicked: u64,
    /// Number of the submission, for `reordered`.
    pub number: u32,
    pub busy: bool,
    reads: bool,
    /// The number of requests that this slot has finished.
    turn: u32,
    sector: u64,
}

pub const IDLE: Slot = Slot { start: 0, kicked: 0, number: 0, busy: false, reads: false, turn: 0, sector: 0 };

/// How a block's requests are made.
pub struct Maker {
    op: u32,
    flags: u32,
    order: u32,
    depth: u32,
    segments: u32,
    /// The distance between two slots' heads.
    pub chain: u16,
    indirect: bool,
    /// Bytes of data that are checked.
    size: u32,
    seed: u64,
    random: u64,
    first: u64,
    /// The number of positions of `size` bytes within the span.
    places: u64,
    pool: u64,
    next: u64,
}

impl Maker {
    /// Returns None if the job does not fit the device, the queue or the pool.
    pub fn new(cpu: usize, job: &GuestJob, info: &DeviceInfo, queue: &Queue) -> Option<Self> {
        let segments = job.segments.max(1);
        let (size, data) = match job.op {
            op::READ | op::WRITE | op::VERIFY => (job.size, job.size),
            op::FLUSH => (0, 0),
            op::GET_ID => (0, 20),
            op::DISCARD | op::WRITE_ZEROES => (job.size, 16),
            _ => return None,
        };
        let moves_data = matches!(job.op, op::READ | op::WRITE | op::VERIFY);
        let parts = if moves_data { segments } else { (data > 0) as u32 };
        let chain = 2 + parts as u16;
        let indirect = queue.indirect
            && (job.flags & flag::INDIRECT != 0 || job.depth * chain as u32 > queue.size as u32);
        let fits_ring = job.depth * if indirect { 1 } else { chain as u32 } <= queue.size as u32;
        let sectors = size as u64 / 512;
        let span = if job.span == 0 { info.capacity.saturating_sub(job.sector) } else { job.span };
        let mut places = span.checked_div(sectors).unwrap_or(1);
        if job.op == op::VERIFY {
            // Slot s uses only the positions s, s + depth, .., so no two slots use the same one.
            places -= places % job.depth as u64;
        }
        let good = fits_ring
            && segments <= 4
            && places > 0
            && size % 512 == 0
            && (size > 0 || !moves_data)
            && (!moves_data || size >= 512 * parts)
            && job.depth as u64 * size.max(512) as u64 <= POOL_SIZE;
        good.then_some(Self {
            op: job.op,
            flags: job.flags,
            order: job.order,
            depth: job.depth,
            segments: parts,
            // A packed ring returns the slot's number.
            chain: if indirect || queue.packed { 1 } else { chain },
            indirect,
            size: data,
            seed: job.seed.max(1),
            random: job.seed.max(1),
            first: job.sector,
            places,
            pool: POOL + cpu as u64 * POOL_SIZE,
            next: 0,
        })
    }

    fn data(&self, slot: usize) -> u64 {
        self.pool + slot as u64 * self.size.max(512) as u64
    }

    fn place(&mut self, turn: u32, slot: usize) -> u64 {
        if self.op == op::VERIFY {
            return (slot as u64 + (turn / 2) as u64 * self.depth as u64) % self.places;
        }
        match self.order {
            order::SEQUENTIAL => {
                self.next = (self.next + 1) % self.places;
                self.next
            }
            order::RANDOM => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random % self.places
            }
            _ => 0,
        }
    }

    /// Returns the seed of a slot's pattern. It changes, so that VERIFY writes new data every time.
    fn seed_of(&self, slot: &Slot) -> u64 {
        if self.op == op::VERIFY { self.seed.wrapping_add((slot.turn / 2) as u64) } else { self.seed }
    }

    /// Writes the header, data and descriptors of the slot's next request. Returns its head.
    pub fn build(&mut self, queue: &Queue, index: usize, slot: &mut Slot) -> u16 {
        let place = self.place(slot.turn, index);
        let kind = match self.op {
            op::VERIFY if slot.turn % 2 == 0 => op::WRITE,
            op::VERIFY => op::READ,
            other => other,
        };
        slot.reads = matches!(kind, op::READ | op::GET_ID);
        slot.busy = true;
        let unit = match self.op {
            op::DISCARD | op::WRITE_ZEROES => 1,
            _ => (self.size / 512) as u64,
        };
        slot.sector = self.first + place * unit;
        let data = self.data(index);
        match kind {
            op::WRITE if self.op == op::VERIFY || self.flags & flag::FILL != 0 => {
                pattern::fill(data, self.size as u64, self.seed_of(slot), slot.sector)
            }
            op::READ if self.op == op::VERIFY || self.flags & flag::CHECK != 0 => {
                pattern::poison(data, self.size as u64)
            }
            op::DISCARD | op::WRITE_ZEROES => {
                store(data, slot.sector);
                store(data + 8, 1u64);
            }
            _ => {}
        }
        let on_disk = matches!(kind, op::READ | op::WRITE);
        store(queue.header(index), kind as u64);
        store(queue.header(index) + 8, if on_disk { slot.sector } else { 0 });
        store(queue.status(index), 0xffu8);
        self.describe(queue, index, data, slot.reads)
    }

    fn describe(&self, queue: &Queue, slot: usize, data: u64, reads: bool) -> u16 {
        let (table, base) =
            if self.indirect || queue.packed { (queue.table(slot), 0) } else { (queue.ring(), slot as u16 * self.chain) };
        let mut at = base;
        let mut put = |address: u64, length: u32, flags: u16| {
            if queue.packed {
                // NEXT means nothing in an indirect table (2.8.7).
                let flags = if self.indirect { flags & WRITE } else { flags };
                Queue::packed_descriptor(table, at, address, length, flags, slot as u16);
            } else {
                let next = if flags & NEXT != 0 { at + 1 } else { 0 };
                Queue::descriptor(table, at, address, length, flags, next);
            }
            at += 1;
        };
        put(queue.header(slot), 16, NEXT);
        let direction = if reads { WRITE } else { 0 };
        let share = self.size / self.segments.max(1) / 512 * 512;
        for i in 0..self.segments {
            let length = if i + 1 == self.segments { self.size - share * i } else { share };
            put(data + (share * i) as u64, length, NEXT | direction);
        }
        put(queue.status(slot), 1, WRITE);
        if queue.packed {
            queue.stage(slot as u16, at, self.indirect);
            slot as u16
        } else if self.indirect {
            let length = 16 * (at - base) as u32;
            Queue::descriptor(queue.ring(), slot as u16, table, length, TABLE, 0);
            slot as u16
        } else {
            base
        }
    }

    /// Checks a completion and counts errors. GET_ID puts its bytes into `value` and `detail`.
    pub fn finish(&self, queue: &Queue, index: usize, slot: &mut Slot, out: &mut Outcome) {
        slot.busy = false;
        let status: u8 = load(queue.status(index));
        let data = self.data(index);
        if status != 0 {
            out.io_errors += 1;
            out.detail = status as u64;
        } else if self.op == op::GET_ID {
            (out.value, out.detail) = (load(data), load(data + 8));
        } else if slot.reads && (self.op == op::VERIFY || self.flags & flag::CHECK != 0) {
            out.data_errors += pattern::wrong_bytes(data, self.size as u64, self.seed_of(slot), slot.sector);
        }
        slot.turn = slot.turn.wrapping_add(1);
    }
}
