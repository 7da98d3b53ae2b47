//! In steady state no request allocates: counted over 10,000 requests, with an I/O thread, for every backend.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use doorbell::backend::{BackendKind, Disk, DiskOptions};
use doorbell::dataplane::{
    BlockParams, CompletePath, DeviceInterrupts, IoThread, LoopConfig, Moderation, ModerationSwitch,
    QueueCounters, QueueLayout, QueueSetup,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// The system's allocator, which counts while it is told to.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Where the first allocation was made.
static FIRST: Mutex<Option<Backtrace>> = Mutex::new(None);

fn count() {
    // The test runner's own thread, the process's first, may allocate at any time.
    // SAFETY: calls without arguments that cannot fail.
    let runner = || unsafe { libc::gettid() == libc::getpid() };
    if !COUNTS.load(Ordering::Relaxed) || runner() {
        return;
    }
    if ALLOCATIONS.fetch_add(1, Ordering::Relaxed) == 0 {
        // The first one tells where; what the telling allocates is not counted.
        COUNTS.store(false, Ordering::SeqCst);
        let stack = Backtrace::force_capture();
        if let Ok(mut first) = FIRST.lock() {
            *first = Some(stack);
        }
        COUNTS.store(true, Ordering::SeqCst);
    }
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: u16 = 256;
/// Guest-physical addresses; each request has a table of descriptors, a header with its status, and its data.
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x3000;
const USED: u64 = 0x4000;
const TABLES: u64 = 0x10000;
const HEADERS: u64 = 0x8000;
const DATA: u64 = 0x10_0000;
const RAM: usize = 16 << 20;
const DISK: u64 = 4 << 20;
const REQUESTS: u16 = 10_000;

/// A driver with `depth` reads of `segments` buffers each.
struct Driver {
    memory: Arc<GuestMemoryMmap>,
    kick: Arc<EventFd>,
    depth: u16,
    made: u16,
}

impl Driver {
    fn new(depth: u16, segments: u16) -> Driver {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap());
        let put = |at, value: Descriptor| memory.write_obj(value, GuestAddress(at)).unwrap();
        for n in 0..depth {
            let wide = u64::from(n);
            let (table, header) = (TABLES + 0x1000 * wide, HEADERS + 32 * wide);
            put(DESC + 16 * wide, Descriptor::new(table, 16 * (u32::from(segments) + 2), 4, 0));
            // A header of 16 zeroes: read, sector 0.
            put(table, Descriptor::new(header, 16, 1, 1));
            for s in 1..=segments {
                let data = DATA + 0x1_0000 * wide + 512 * u64::from(s - 1);
                put(table + 16 * u64::from(s), Descriptor::new(data, 512, 3, s + 1));
            }
            put(table + 16 * u64::from(segments + 1), Descriptor::new(header + 16, 1, 2, 0));
        }
        Driver { memory, kick: Arc::new(EventFd::new(0).unwrap()), depth, made: 0 }
    }

    fn setup(&self, disk: &Disk) -> QueueSetup {
        QueueSetup {
            name: "test".into(),
            layout: QueueLayout { indirect: true, ..QueueLayout::split(SIZE, DESC, AVAIL, USED) },
            features: 0,
            memory: self.memory.clone(),
            kick: self.kick.clone(),
            backend: disk.queue_backend().unwrap(),
            interrupt: DeviceInterrupts::new(Vec::new(), None, CompletePath::Irqfd).queue_interrupt(),
            moderation: ModerationSwitch::new(Moderation::Auto),
            block: Arc::new(BlockParams::new(DISK / 512)),
            counters: Arc::new(QueueCounters::default()),
            broken: Arc::new(|| panic!("the ring is fine")),
        }
    }

    fn word(&self, ring: u64, n: u16) -> &AtomicU16 {
        let ring = self.memory.get_host_address(GuestAddress(ring)).unwrap().cast::<AtomicU16>();
        // SAFETY: both rings have more words than are used here, in memory that `self` holds.
        unsafe { &*ring.add(usize::from(n)) }
    }

    /// `requests`, `depth` at a time. Allocates nothing itself.
    fn run(&mut self, requests: u16) {
        let begun = Instant::now();
        for _ in 0..requests.div_ceil(self.depth) {
            for n in 0..self.depth {
                self.word(AVAIL, 2 + self.made % SIZE).store(n, Ordering::Relaxed);
                self.made = self.made.wrapping_add(1);
            }
            self.word(AVAIL, 1).store(self.made, Ordering::Release);
            self.kick.write(1).unwrap();
            while self.word(USED, 1).load(Ordering::Acquire) != self.made {
                assert!(begun.elapsed() < Duration::from_secs(120), "requests complete");
                std::thread::yield_now();
            }
        }
    }
}

/// Allocations of the whole process during the requests.
fn allocations(kind: BackendKind, path: &Path, depth: u16, segments: u16) -> u64 {
    let options = DiskOptions {
        path: kind.uses_file().then(|| path.to_path_buf()),
        readonly: false,
        kind,
        size: (!kind.uses_file()).then_some(DISK),
        direct: false,
        block_size: None,
        delay_us: 0,
    };
    let disk = Disk::open(&options).unwrap();
    let mut driver = Driver::new(depth, segments);
    let config =
        LoopConfig { name: "test".into(), uring: kind == BackendKind::IoUring, ..LoopConfig::default() };
    let thread = IoThread::spawn(config, Arc::new(|why| panic!("{why}"))).unwrap();
    let queue = thread.handle().attach(driver.setup(&disk)).unwrap();
    driver.run(1000);
    ALLOCATIONS.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::SeqCst);
    driver.run(REQUESTS);
    COUNTS.store(false, Ordering::SeqCst);
    let found = ALLOCATIONS.load(Ordering::Relaxed);
    queue.detach();
    found
}

// One test: what runs beside it would be counted.
#[test]
fn requests_allocate_nothing() {
    // On a disk's file system: a file in memory is served without the ring.
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("allocations.img");
    std::fs::write(&path, vec![7; DISK as usize]).unwrap();
    let mut kinds = vec![BackendKind::Null, BackendKind::Mem, BackendKind::Sync];
    match doorbell::host::io_uring_available() {
        Ok(()) => kinds.push(BackendKind::IoUring),
        Err(why) => println!("skipped io_uring: {why}"),
    }
    for kind in kinds {
        for (depth, segments) in [(1, 1), (32, 1), (1, 128), (32, 128)] {
            let found = allocations(kind, &path, depth, segments);
            let first = FIRST.lock().unwrap().take().map(|stack| stack.to_string()).unwrap_or_default();
            assert_eq!(found, 0, "{kind}, {depth} deep, {segments} segments; the first one:\n{first}");
        }
    }
    std::fs::remove_file(&path).unwrap();
}
