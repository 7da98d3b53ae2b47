//! What one request costs the device's side of a virtqueue: doorbell's `Ring` and virtio-queue's `Queue` over the same
//! guest memory.
//!
//!     cargo bench --bench ring
//!
//! One iteration makes a batch of read requests available, pops and walks all of them, completes them, and publishes. The
//! batch is 1 or 32 requests; the three descriptors of a request are a direct chain or an indirect table. Both sides turn
//! every buffer into a host address, as a device must before it moves data. The driver wants no interrupt and no kick.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use doorbell::dataplane::{Chain, Head, QueueLayout, Ring};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const SIZE: u16 = 128;
const BATCHES: [u16; 2] = [1, 32];
/// Guest-physical addresses.
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const TABLES: u64 = 0x4000;
const HEADERS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The driver: its descriptors stay, only the available ring moves on.
struct Driver {
    memory: Arc<GuestMemoryMmap>,
    stride: u16,
    made: u16,
}

impl Driver {
    fn new(indirect: bool) -> Driver {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
        let put = |at, value: Descriptor| memory.write_obj(value, GuestAddress(at)).unwrap();
        for n in 0..SIZE / 3 {
            let wide = u64::from(n);
            // A direct chain lies in the queue's table, at 3n; an indirect one in a table of its own.
            let (table, first) = if indirect { (TABLES + 64 * wide, 0) } else { (DESC + 48 * wide, 3 * n) };
            put(table, Descriptor::new(HEADERS + 32 * wide, 16, NEXT, first + 1));
            put(table + 16, Descriptor::new(DATA + 512 * wide, 512, NEXT | WRITE, first + 2));
            put(table + 32, Descriptor::new(HEADERS + 32 * wide + 16, 1, WRITE, 0));
            if indirect {
                put(DESC + 16 * wide, Descriptor::new(table, 48, INDIRECT, 0));
            }
        }
        // VRING_AVAIL_F_NO_INTERRUPT.
        memory.write_obj(1u16, GuestAddress(AVAIL)).unwrap();
        Driver { memory, stride: if indirect { 1 } else { 3 }, made: 0 }
    }

    /// Makes `batch` requests available. Both devices see the same stores.
    fn submit(&mut self, batch: u16) {
        let ring = self.memory.get_host_address(GuestAddress(AVAIL)).unwrap().cast::<AtomicU16>();
        // SAFETY: the ring has SIZE + 2 words in the memory that `self` holds, and is only accessed atomically.
        let word = |n: u16| unsafe { &*ring.add(usize::from(n)) };
        for n in 0..batch {
            word(2 + self.made % SIZE).store(self.stride * n, Ordering::Relaxed);
            self.made = self.made.wrapping_add(1);
        }
        word(1).store(self.made, Ordering::Release);
    }

    fn ring(&self) -> Ring {
        let layout = QueueLayout { indirect: true, ..QueueLayout::split(SIZE, DESC, AVAIL, USED) };
        Ring::new(self.memory.clone(), layout).unwrap()
    }

    fn queue(&self) -> Queue {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(DESC)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAIL)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_ready(true);
        assert!(queue.is_valid(&*self.memory));
        queue
    }
}

/// All requests that are available, by doorbell's ring; returns their number.
fn ours(ring: &mut Ring, chain: &mut Chain, heads: &mut Vec<Head>) -> usize {
    heads.clear();
    while ring.pop(chain).unwrap() {
        black_box((&chain.readable, &chain.writable));
        heads.push(chain.head);
    }
    for &head in &*heads {
        ring.push(head, 513);
    }
    black_box(ring.publish());
    heads.len()
}

/// The same by virtio-queue, in the way that its documentation recommends. It has no batch of completions: each has its
/// own store of the used index.
fn theirs(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    buffers: &mut Vec<*mut u8>,
    heads: &mut Vec<u16>,
) -> usize {
    heads.clear();
    for chain in queue.iter(memory).unwrap() {
        heads.push(chain.head_index());
        buffers.clear();
        for descriptor in chain {
            let slice = memory.get_slice(descriptor.addr(), descriptor.len() as usize).unwrap();
            buffers.push(slice.ptr_guard_mut().as_ptr());
        }
        black_box(&*buffers);
    }
    for &head in &*heads {
        queue.add_used(memory, head, 513).unwrap();
    }
    black_box(queue.needs_notification(memory).unwrap());
    heads.len()
}

fn pop_and_push(criterion: &mut Criterion) {
    for (shape, indirect) in [("direct", false), ("indirect", true)] {
        let mut group = criterion.benchmark_group(format!("pop+push {shape}"));
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch.into()));
            let mut driver = Driver::new(indirect);
            let (mut ring, mut chain, mut heads) = (driver.ring(), Chain::default(), Vec::new());
            group.bench_function(BenchmarkId::new("doorbell", batch), |bencher| {
                bencher.iter(|| {
                    driver.submit(batch);
                    assert_eq!(ours(&mut ring, &mut chain, &mut heads), usize::from(batch));
                });
            });
            let mut driver = Driver::new(indirect);
            let (memory, mut queue) = (driver.memory.clone(), driver.queue());
            let (mut buffers, mut heads) = (Vec::new(), Vec::new());
            group.bench_function(BenchmarkId::new("virtio-queue", batch), |bencher| {
                bencher.iter(|| {
                    driver.submit(batch);
                    let done = theirs(&mut queue, &memory, &mut buffers, &mut heads);
                    assert_eq!(done, usize::from(batch));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pop_and_push);
criterion_main!(benches);
