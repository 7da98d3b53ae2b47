use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor as SplitDescriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};

use super::super::chain::WRITE;
use super::SplitRing as Ring;
use super::*;

const SIZE: u16 = 8;
const RAM: usize = 0x10_0000;

fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap())
}

/// The descriptor table at 0x1000, the available ring at 0x2000, the used ring at 0x3000.
fn layout(event_idx: bool, indirect: bool) -> QueueLayout {
    QueueLayout { event_idx, indirect, ..QueueLayout::split(SIZE, 0x1000, 0x2000, 0x3000) }
}

struct Driver(Arc<GuestMemoryMmap>);

impl Driver {
    fn word(&self, addr: u64, value: u16) {
        self.0.write_obj(value, GuestAddress(addr)).unwrap();
    }
    fn read(&self, addr: u64) -> u16 {
        self.0.read_obj(GuestAddress(addr)).unwrap()
    }
    fn desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.desc_at(0x1000 + 16 * u64::from(index), addr, len, flags, next);
    }
    fn desc_at(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        self.0.write_obj(SplitDescriptor::new(addr, len, flags, next), GuestAddress(at)).unwrap();
    }
    fn offer(&self, heads: &[u16]) {
        let mut index = self.read(0x2002);
        for &head in heads {
            self.word(0x2004 + 2 * u64::from(index % SIZE), head);
            index = index.wrapping_add(1);
        }
        self.word(0x2002, index);
    }
    fn used_event(&self, value: u16) {
        self.word(0x2004 + 2 * u64::from(SIZE), value);
    }
}

fn ring(event_idx: bool, indirect: bool) -> (Driver, Ring) {
    let memory = memory();
    (Driver(memory.clone()), Ring::new(memory, layout(event_idx, indirect)).unwrap())
}

fn head(id: u16) -> Head {
    Head { id, descriptors: 0 }
}

fn pop(ring: &mut Ring) -> Result<Option<Chain>, RingError> {
    let mut chain = Chain::default();
    Ok(ring.pop(&mut chain)?.then_some(chain))
}

#[test]
fn a_chain_comes_as_readable_and_writable_buffers() {
    let (driver, mut ring) = ring(false, false);
    driver.desc(3, 0x8000, 16, NEXT, 5);
    driver.desc(5, 0x9000, 512, NEXT | WRITE, 1);
    driver.desc(1, 0xa000, 1, WRITE, 0);
    driver.offer(&[3]);
    let chain = pop(&mut ring).unwrap().unwrap();
    let lens = |v: &[libc::iovec]| v.iter().map(|b| b.iov_len).collect::<Vec<_>>();
    assert_eq!((chain.head.id, lens(&chain.readable), lens(&chain.writable)), (3, vec![16], vec![512, 1]));
    assert!(pop(&mut ring).unwrap().is_none());
}

#[test]
fn agrees_with_the_mock_driver_of_virtio_queue() {
    let memory = memory();
    let mock = MockSplitQueue::new(&*memory, SIZE);
    let descs =
        [SplitDescriptor::new(0x8000, 16, NEXT, 1), SplitDescriptor::new(0x9000, 4096, NEXT | WRITE, 2)];
    let tail = SplitDescriptor::new(0xb000, 1, WRITE, 0);
    mock.build_desc_chain(&[descs[0], descs[1], tail].map(|d| d.into())).unwrap();
    let (desc, avail, used) = (mock.desc_table_addr().0, mock.avail_addr().0, mock.used_addr().0);
    let layout = QueueLayout::split(SIZE, desc, avail, used);
    let mut ring = Ring::new(memory.clone(), layout).unwrap();
    let chain = pop(&mut ring).unwrap().unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (1, 2));
    ring.push(chain.head, 4097);
    assert!(ring.publish());
    assert_eq!(mock.used().idx().load(), 1);
}

#[test]
fn hostile_chains_break_the_ring_and_nothing_else() {
    type Case = (&'static str, RingError, fn(&Driver));
    let cases: [Case; 11] = [
        ("a loop", RingError::Loop, |d| {
            d.desc(0, 0x8000, 16, NEXT, 1);
            d.desc(1, 0x8000, 16, NEXT, 0);
        }),
        ("next beyond the table", RingError::DescriptorIndex, |d| d.desc(0, 0x8000, 16, NEXT, SIZE)),
        ("beyond RAM", RingError::Address, |d| d.desc(0, RAM as u64 - 8, 16, 0, 0)),
        ("address wraps", RingError::Address, |d| d.desc(0, u64::MAX - 4, 16, 0, 0)),
        ("readable after writable", RingError::Order, |d| {
            d.desc(0, 0x8000, 16, NEXT | WRITE, 1);
            d.desc(1, 0x8000, 16, 0, 0);
        }),
        ("indirect of no length", RingError::Indirect, |d| d.desc(0, 0x8000, 0, INDIRECT, 0)),
        ("indirect of odd length", RingError::Indirect, |d| d.desc(0, 0x8000, 24, INDIRECT, 0)),
        ("indirect too long", RingError::Indirect, |d| d.desc(0, 0x8000, 16 * 1025, INDIRECT, 0)),
        ("indirect with next", RingError::Indirect, |d| d.desc(0, 0x8000, 16, INDIRECT | NEXT, 1)),
        ("indirect in indirect", RingError::Indirect, |d| {
            d.desc(0, 0x8000, 16, INDIRECT, 0);
            d.desc_at(0x8000, 0x9000, 16, INDIRECT, 0);
        }),
        ("indirect loop", RingError::Loop, |d| {
            d.desc(0, 0x8000, 32, INDIRECT, 0);
            d.desc_at(0x8000, 0x9000, 16, NEXT, 1);
            d.desc_at(0x8010, 0x9000, 16, NEXT, 0);
        }),
    ];
    for (name, error, arm) in cases {
        let (driver, mut ring) = ring(false, true);
        arm(&driver);
        driver.offer(&[0]);
        assert_eq!(pop(&mut ring).unwrap_err(), error, "{name}");
    }
    let (driver, mut ring) = ring(false, false);
    driver.desc(0, 0x8000, 16, INDIRECT, 0);
    driver.offer(&[0]);
    assert_eq!(pop(&mut ring).unwrap_err(), RingError::Indirect, "indirect was not negotiated");
}

#[test]
fn an_available_index_too_far_ahead_breaks_the_ring() {
    let (driver, mut ring) = ring(false, false);
    driver.word(0x2002, SIZE + 1);
    assert_eq!(pop(&mut ring).unwrap_err(), RingError::AvailIndex);
}

#[test]
fn rings_outside_ram_or_misaligned_are_refused() {
    for bad in [
        QueueLayout { desc: RAM as u64, ..layout(false, false) },
        QueueLayout { desc: 0x1008, ..layout(false, false) },
        QueueLayout { avail: 0x2001, ..layout(false, false) },
        QueueLayout { used: RAM as u64 - 4, ..layout(false, false) },
        QueueLayout { size: 3, ..layout(false, false) },
        QueueLayout { size: 0, ..layout(false, false) },
    ] {
        assert_eq!(Ring::new(memory(), bad).unwrap_err(), RingError::Layout, "{bad:?}");
    }
}

#[test]
fn completions_are_seen_only_after_one_publish() {
    let (driver, mut ring) = ring(false, false);
    ring.push(head(4), 1);
    ring.push(head(2), 513);
    assert_eq!(driver.read(0x3002), 0);
    assert!(ring.publish());
    assert_eq!(driver.read(0x3002), 2);
    assert_eq!((driver.read(0x3004), driver.read(0x300c), driver.read(0x3010)), (4, 2, 513));
}

#[test]
fn no_interrupt_flag_and_event_index_are_obeyed() {
    let (driver, mut plain) = ring(false, false);
    driver.word(0x2000, AVAIL_NO_INTERRUPT);
    plain.push(head(0), 1);
    assert!(!plain.publish());

    let (driver, mut evented) = ring(true, false);
    driver.used_event(1);
    evented.push(head(0), 1);
    assert!(!evented.publish(), "the driver asked to be told at the second");
    evented.push(head(0), 1);
    assert!(evented.publish());
    evented.push(head(0), 1);
    assert!(!evented.publish(), "and not again until it moves the event");
}

#[test]
fn enabling_kicks_notices_what_came_before() {
    for event_idx in [false, true] {
        let (driver, mut ring) = ring(event_idx, false);
        ring.disable_kicks();
        assert!(!ring.enable_kicks());
        driver.desc(0, 0x8000, 16, 0, 0);
        driver.offer(&[0]);
        assert!(ring.enable_kicks());
        pop(&mut ring).unwrap().unwrap();
        assert!(!ring.enable_kicks());
        if event_idx {
            assert_eq!(driver.read(0x3004 + 8 * u64::from(SIZE)), 1, "avail_event");
        }
    }
}

proptest! {
    #[test]
    fn random_rings_never_panic_or_leave_memory(words in prop::collection::vec(any::<u16>(), 256), heads in prop::collection::vec(any::<u16>(), 8)) {
        let (driver, mut ring) = ring(true, true);
        for (i, word) in words.iter().enumerate() {
            driver.word(0x1000 + 2 * i as u64 % 0x200, *word);
            driver.word(0x8000 + 2 * i as u64, *word & 0x1f);
        }
        driver.offer(&heads);
        while let Ok(Some(chain)) = pop(&mut ring) {
            let inside = |b: &libc::iovec| b.iov_len <= RAM;
            prop_assert!(chain.readable.iter().all(inside) && chain.writable.iter().all(inside));
        }
    }
}
