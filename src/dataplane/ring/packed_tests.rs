use vm_memory::{Bytes, GuestAddress};

use super::*;

const RAM: usize = 0x10_0000;
const RING: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
const TABLES: u64 = 0x4000;
const BUFFER: u64 = 0x8000;

fn layout(size: u16, event_idx: bool) -> QueueLayout {
    QueueLayout { packed: true, size, desc: RING, avail: DRIVER, used: DEVICE, event_idx, indirect: true }
}

/// A place as a count of descriptors since the start: what both sides' offsets and wrap counters stand for.
#[derive(Clone, Copy, Default)]
struct Count(u64);

impl Count {
    fn offset(self, size: u16) -> u64 {
        self.0 % u64::from(size)
    }
    fn wrap(self, size: u16) -> bool {
        (self.0 / u64::from(size)).is_multiple_of(2)
    }
    fn word(self, size: u16) -> u16 {
        self.offset(size) as u16 | u16::from(self.wrap(size)) << 15
    }
}

/// The simplest driver that keeps the rules: it counts descriptors and never wraps.
struct Driver {
    memory: Arc<GuestMemoryMmap>,
    size: u16,
    avail: Count,
    used: Count,
    /// Descriptors of each buffer ID that is in use.
    lengths: Vec<Option<u16>>,
}

impl Driver {
    fn write<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }
    fn read<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }
    fn desc_at(&self, at: u64, addr: u64, len: u32, id: u16, flags: u16) {
        self.write(at, addr);
        self.write(at + 8, u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48);
    }
    fn free(&self) -> u16 {
        self.size - self.lengths.iter().flatten().sum::<u16>()
    }
    /// Makes a chain available: address, length, flags of each descriptor. Returns its ID.
    fn offer(&mut self, chain: &[(u64, u32, u16)]) -> u16 {
        let id = self.lengths.iter().position(Option::is_none).unwrap() as u16;
        self.lengths[usize::from(id)] = Some(chain.len() as u16);
        for (n, &(addr, len, flags)) in chain.iter().enumerate().rev() {
            let at = Count(self.avail.0 + n as u64);
            let wrap = if at.wrap(self.size) { AVAIL } else { USED };
            let next = if n + 1 < chain.len() { NEXT } else { 0 };
            self.desc_at(RING + 16 * at.offset(self.size), addr, len, id, flags | next | wrap);
        }
        self.avail.0 += chain.len() as u64;
        id
    }
    /// Takes everything that is visibly used: ID and length.
    fn reap(&mut self) -> Vec<(u16, u32)> {
        let mut found = Vec::new();
        loop {
            let at = RING + 16 * self.used.offset(self.size);
            let flags: u16 = self.read(at + 14);
            let both = if self.used.wrap(self.size) { AVAIL | USED } else { 0 };
            if flags & (AVAIL | USED) != both || self.used.0 == self.avail.0 {
                return found;
            }
            let id: u16 = self.read(at + 12);
            found.push((id, self.read(at + 8)));
            self.used.0 += u64::from(self.lengths[usize::from(id)].take().unwrap());
        }
    }
    /// Wants an event at this place.
    fn event(&self, at: Count) {
        self.write(DRIVER, u32::from(DESC) << 16 | u32::from(at.word(self.size)));
    }
}

fn ring(size: u16, event_idx: bool) -> (Driver, PackedRing) {
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap());
    let lengths = vec![None; usize::from(size)];
    let driver =
        Driver { memory: memory.clone(), size, avail: Count::default(), used: Count::default(), lengths };
    (driver, PackedRing::new(memory, layout(size, event_idx)).unwrap())
}

fn pop(ring: &mut PackedRing) -> Result<Option<Chain>, RingError> {
    let mut chain = Chain::default();
    Ok(ring.pop(&mut chain)?.then_some(chain))
}

fn lens(buffers: &[libc::iovec]) -> Vec<usize> {
    buffers.iter().map(|buffer| buffer.iov_len).collect()
}

const READ: [(u64, u32, u16); 3] = [(BUFFER, 16, 0), (BUFFER, 512, WRITE), (BUFFER, 1, WRITE)];

#[test]
fn a_chain_goes_round_the_end_of_a_ring_of_any_size() {
    let (mut driver, mut ring) = ring(5, false);
    for _ in 0..20 {
        let id = driver.offer(&READ);
        let chain = pop(&mut ring).unwrap().unwrap();
        assert_eq!((chain.head.id, chain.head.descriptors), (id, 3));
        assert_eq!((lens(&chain.readable), lens(&chain.writable)), (vec![16], vec![512, 1]));
        assert!(pop(&mut ring).unwrap().is_none());
        ring.push(chain.head, 513);
        assert_eq!(driver.reap(), [], "not published");
        assert!(ring.publish());
        assert_eq!(driver.reap(), [(id, 513)]);
    }
}

#[test]
fn all_entries_of_an_indirect_table_are_the_chain() {
    let (mut driver, mut ring) = ring(2, false);
    driver.desc_at(TABLES, BUFFER, 16, 7, 0);
    driver.desc_at(TABLES + 16, BUFFER, 512, 9, WRITE);
    driver.desc_at(TABLES + 32, BUFFER, 1, 9, WRITE);
    let id = driver.offer(&[(TABLES, 48, INDIRECT)]);
    let chain = pop(&mut ring).unwrap().unwrap();
    assert_eq!((chain.head.id, chain.head.descriptors), (id, 1), "the ring's own ID counts");
    assert_eq!((lens(&chain.readable), lens(&chain.writable)), (vec![16], vec![512, 1]));
}

#[test]
fn flags_that_do_not_fit_the_lap_make_nothing_available() {
    let (driver, mut ring) = ring(4, false);
    for flags in [0, USED, AVAIL | USED] {
        driver.desc_at(RING, BUFFER, 16, 0, flags);
        assert!(!ring.has_avail() && pop(&mut ring).unwrap().is_none(), "{flags:#x}");
    }
    driver.desc_at(RING, BUFFER, 16, 0xffff, AVAIL);
    assert!(ring.has_avail());
    // The ID is the driver's own; it need not be below the size.
    assert_eq!(pop(&mut ring).unwrap().unwrap().head.id, 0xffff);
}

#[test]
fn hostile_chains_break_the_ring_and_nothing_else() {
    const IN: u16 = AVAIL | INDIRECT;
    type Case = (&'static str, RingError, fn(&Driver));
    let cases: [Case; 9] = [
        ("a chain without an end", RingError::Overrun, |d| {
            (0..8).for_each(|n| d.desc_at(RING + 16 * n, BUFFER, 16, 0, AVAIL | NEXT));
        }),
        ("beyond RAM", RingError::Address, |d| d.desc_at(RING, RAM as u64 - 8, 16, 0, AVAIL)),
        ("address wraps", RingError::Address, |d| d.desc_at(RING, u64::MAX - 4, 16, 0, AVAIL)),
        ("readable after writable", RingError::Order, |d| {
            d.desc_at(RING, BUFFER, 16, 0, AVAIL | NEXT | WRITE);
            d.desc_at(RING + 16, BUFFER, 16, 0, AVAIL);
        }),
        ("indirect of no length", RingError::Indirect, |d| d.desc_at(RING, TABLES, 0, 0, IN)),
        ("indirect of odd length", RingError::Indirect, |d| d.desc_at(RING, TABLES, 24, 0, IN)),
        ("indirect too long", RingError::Indirect, |d| d.desc_at(RING, TABLES, 16 * 1025, 0, IN)),
        ("indirect with next", RingError::Indirect, |d| d.desc_at(RING, TABLES, 16, 0, IN | NEXT)),
        ("indirect in indirect", RingError::Indirect, |d| {
            d.desc_at(RING, TABLES, 16, 0, IN);
            d.desc_at(TABLES, BUFFER, 16, 0, INDIRECT);
        }),
    ];
    for (name, error, arm) in cases {
        let (driver, mut ring) = ring(8, true);
        arm(&driver);
        assert_eq!(pop(&mut ring).unwrap_err(), error, "{name}");
    }
    let (driver, _) = ring(8, true);
    let layout = QueueLayout { indirect: false, ..layout(8, true) };
    let mut ring = PackedRing::new(driver.memory.clone(), layout).unwrap();
    driver.desc_at(RING, TABLES, 16, 0, IN);
    assert_eq!(pop(&mut ring).unwrap_err(), RingError::Indirect, "indirect was not negotiated");
}

/// The driver makes descriptors available that it does not have back.
#[test]
fn a_lap_too_far_breaks_the_ring() {
    let (driver, mut ring) = ring(2, false);
    for wrap in [AVAIL, AVAIL, USED] {
        let at = RING + 16 * u64::from(ring.next_avail.offset);
        driver.desc_at(at, BUFFER, 16, 0, wrap);
        match pop(&mut ring) {
            Ok(chain) => ring.push(chain.unwrap().head, 0),
            Err(error) => {
                assert_eq!((error, wrap), (RingError::Overrun, USED));
                return;
            }
        }
    }
    panic!("the third one was taken, although nothing was published");
}

#[test]
fn rings_outside_ram_or_misaligned_are_refused() {
    let good = layout(8, false);
    for bad in [
        QueueLayout { desc: RAM as u64, ..good },
        QueueLayout { desc: 0x1008, ..good },
        QueueLayout { avail: 0x2002, ..good },
        QueueLayout { used: RAM as u64 - 2, ..good },
        QueueLayout { size: 0, ..good },
        QueueLayout { size: (1 << 15) + 1, ..good },
    ] {
        let (driver, _) = ring(8, false);
        assert_eq!(PackedRing::new(driver.memory, bad).unwrap_err(), RingError::Layout, "{bad:?}");
    }
}

#[test]
fn event_structures_are_obeyed() {
    for event_idx in [false, true] {
        let (mut driver, mut ring) = ring(4, event_idx);
        let mut wanted = |event: u32| {
            driver.write(DRIVER, event);
            driver.offer(&READ);
            let chain = pop(&mut ring).unwrap().unwrap();
            ring.push(chain.head, 1);
            let wanted = ring.publish();
            driver.reap();
            wanted
        };
        assert!(!wanted(u32::from(DISABLE) << 16));
        assert!(wanted(u32::from(ENABLE) << 16));
        // The third request takes up 6 to 8, offset 2 of the second lap. Without EVENT_IDX a position means nothing.
        assert!(wanted(u32::from(DESC) << 16 | 2));
        assert_eq!(wanted(u32::from(DESC) << 16 | 2), !event_idx, "passed before");
    }
}

#[test]
fn kicks_are_asked_for_at_the_next_position() {
    for event_idx in [false, true] {
        let (mut driver, mut ring) = ring(4, event_idx);
        for _ in 0..5 {
            ring.disable_kicks();
            assert_eq!(driver.read::<u32>(DEVICE) >> 16, u32::from(DISABLE));
            assert!(!ring.enable_kicks());
            let event: u32 = driver.read(DEVICE);
            let how = if event_idx { DESC } else { ENABLE };
            assert_eq!((event >> 16) as u16, how);
            assert_eq!(event as u16, driver.avail.word(4));
            driver.offer(&READ);
            assert!(ring.enable_kicks(), "a request came before");
            let chain = pop(&mut ring).unwrap().unwrap();
            ring.push(chain.head, 1);
            ring.publish();
            driver.reap();
        }
    }
}

#[path = "packed_model_tests.rs"]
mod model;
