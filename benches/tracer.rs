//! The cost of a trace while it is off, and while it is on. One worker serves a ring in memory, without thread, guest and
//! system call, in three makes: timestamps compiled out; compiled in and off; on.
//!
//!     cargo bench --bench tracer                      times and their ratios
//!     cargo bench --bench tracer -- --instructions    instructions per request, counted by valgrind
//!
//! A batch of requests is made available, processed at once and published, and the driver wants no interrupt. So nothing is
//! measured but the code that takes the timestamps. In a VM a request costs about a hundred times as much.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use doorbell::backend::{Backend, Outcome, Request, Submitter};
use doorbell::dataplane::{
    BlockParams, CompletePath, DeviceInterrupts, Moderation, ModerationSwitch, NoTracer, QueueCounters,
    QueueLayout, QueueSetup, RequestTracer, Tracer, Worker,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

const SIZE: u16 = 128;
/// Guest-physical addresses.
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADERS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;
/// Rounds in which every make has one block, and the requests of a block.
const ROUNDS: usize = 300;
const BLOCK: usize = 4096;
const BATCHES: [u16; 2] = [1, 32];

/// The makes. Their order is different in each round.
const MAKES: [&str; 3] = ["compiled out", "off", "on"];

/// Completes at once.
struct Instantly;

impl Backend for Instantly {
    fn start(&mut self, _: u64, request: Request, _: &mut dyn Submitter) -> Outcome {
        black_box(request);
        Outcome::Done(Ok(()))
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        unreachable!("it never says Pending")
    }
}

impl Submitter for Instantly {
    unsafe fn push(&mut self, _: u64, _: io_uring::squeue::Entry) -> std::io::Result<()> {
        unreachable!("it never says Pending")
    }
}

/// A driver that reads, and the worker that serves it.
struct Queue<S> {
    worker: Worker<S>,
    counters: Arc<QueueCounters>,
    memory: Arc<GuestMemoryMmap>,
    made: u16,
}

impl<S: Tracer> Queue<S> {
    fn new() -> Queue<S> {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
        let put = |at, value: Descriptor| memory.write_obj(value, GuestAddress(at)).unwrap();
        for n in 0..SIZE / 3 {
            let (head, wide) = (3 * n, u64::from(n));
            let at = |d: u16| DESC + 16 * u64::from(d);
            // A header of 16 zeroes: read, sector 0.
            put(at(head), Descriptor::new(HEADERS + 32 * wide, 16, 1, head + 1));
            put(at(head + 1), Descriptor::new(DATA + 512 * wide, 512, 3, head + 2));
            put(at(head + 2), Descriptor::new(HEADERS + 32 * wide + 16, 1, 2, 0));
        }
        // VRING_AVAIL_F_NO_INTERRUPT.
        memory.write_obj(1u16, GuestAddress(AVAIL)).unwrap();
        let counters = Arc::new(QueueCounters::default());
        let interrupts = DeviceInterrupts::new(Vec::new(), None, CompletePath::Irqfd);
        let worker = Worker::new(QueueSetup {
            name: "bench".into(),
            features: 0,
            layout: QueueLayout::split(SIZE, DESC, AVAIL, USED),
            memory: memory.clone(),
            kick: Arc::new(EventFd::new(0).unwrap()),
            backend: Box::new(Instantly),
            interrupt: interrupts.queue_interrupt(),
            moderation: ModerationSwitch::new(Moderation::Off),
            block: Arc::new(BlockParams::new(8)),
            counters: counters.clone(),
            broken: Arc::new(|| panic!("the ring is fine")),
        });
        Queue { worker: worker.unwrap(), counters, memory, made: 0 }
    }

    fn run(&mut self, batch: u16, requests: usize) {
        let ring = self.memory.get_host_address(GuestAddress(AVAIL)).unwrap().cast::<AtomicU16>();
        // SAFETY: the ring has SIZE + 2 words in the memory that `self` holds, and is only accessed atomically.
        let word = |n: u16| unsafe { &*ring.add(usize::from(n)) };
        for _ in 0..requests / usize::from(batch) {
            for n in 0..batch {
                word(2 + self.made % SIZE).store(3 * n, Ordering::Relaxed);
                self.made = self.made.wrapping_add(1);
            }
            word(1).store(self.made, Ordering::Release);
            self.worker.process(&mut Instantly);
            self.worker.finish(&mut |_| false);
        }
    }
}

/// The three makes side by side, each with a ring of its own.
struct Makes {
    out: Queue<NoTracer>,
    off: Queue<RequestTracer>,
    on: Queue<RequestTracer>,
}

impl Makes {
    /// Nanoseconds per request of one block.
    fn block(&mut self, make: usize, batch: u16, requests: usize) -> f64 {
        if make == 2 {
            self.on.counters.trace.start(requests);
        }
        let begun = Instant::now();
        match make {
            0 => self.out.run(batch, requests),
            1 => self.off.run(batch, requests),
            _ => self.on.run(batch, requests),
        }
        let took = begun.elapsed();
        let recorded = self.on.counters.trace.stop();
        assert!(
            make != 2 || recorded.is_some_and(|all| all.requests.len() == requests),
            "every request has its timestamps"
        );
        took.as_nanos() as f64 / requests as f64
    }
}

fn makes() -> Makes {
    Makes { out: Queue::new(), off: Queue::new(), on: Queue::new() }
}

/// Median, and what half of the values lie between.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [2, 1, 3].map(|quarter| values[values.len() * quarter / 4])
}

fn times() {
    println!(
        "{ROUNDS} rounds in turn, {BLOCK} requests in a block; median (what half of the rounds lie between)"
    );
    println!("batch  timestamps    ns per request            to compiled out");
    for batch in BATCHES {
        let mut makes = makes();
        let mut rounds: Vec<[f64; 3]> = Vec::new();
        for round in 0..ROUNDS {
            let mut times = [0.0; 3];
            for turn in 0..3 {
                let make = (round + turn * if round % 2 == 0 { 1 } else { 2 }) % 3;
                times[make] = makes.block(make, batch, BLOCK);
            }
            rounds.push(times);
        }
        for (make, name) in MAKES.iter().enumerate() {
            let [ns, low, high] = spread(rounds.iter().map(|times| times[make]).collect());
            let [ratio, from, to] = spread(rounds.iter().map(|times| times[make] / times[0]).collect());
            println!(
                "{batch:>5}  {name:<12}  {ns:6.1} ({low:.1} to {high:.1})   {ratio:8.3} ({from:.3} to {to:.3})"
            );
        }
    }
}

/// Runs itself under valgrind twice. The difference between the two runs is due to requests alone.
fn instructions() -> Result<(), String> {
    println!(
        "instructions per request in user space (clock reads are system calls under valgrind, and not in it)"
    );
    println!("batch  timestamps    instructions");
    for batch in BATCHES {
        for (make, name) in MAKES.iter().enumerate() {
            let [short, long] = [BLOCK, 3 * BLOCK].map(|requests| counted(make, batch, requests));
            let each = (long? - short?) as f64 / (2 * BLOCK) as f64;
            println!("{batch:>5}  {name:<12}  {each:12.1}");
        }
    }
    Ok(())
}

fn counted(make: usize, batch: u16, requests: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = valgrind.arg("--block").args([make, batch.into(), requests].map(|n| n.to_string())).output();
    let output = output.map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    line.and_then(|(_, n)| n.trim().parse().ok()).ok_or(format!("valgrind counted nothing:\n{text}"))
}

fn main() -> Result<(), String> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|word| word == "--block") {
        let numbers: Vec<usize> = arguments[at + 1..].iter().filter_map(|n| n.parse().ok()).collect();
        let [make, batch, requests] = numbers[..] else { return Err("--block MAKE BATCH REQUESTS".into()) };
        makes().block(make, batch as u16, requests);
        return Ok(());
    }
    if arguments.iter().any(|word| word == "--instructions") {
        return instructions();
    }
    times();
    Ok(())
}
