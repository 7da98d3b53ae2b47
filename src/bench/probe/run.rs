use std::fmt;

use super::super::probe_abi::{Plan, flag, kind, op, order, vector, wait};
use super::super::report::{Report, Row, RunFacts, SCHEMA, fill_ratios};
use super::super::{HostFacts, Path, Plan as Order};
use super::floor::{Answer, Floor, FloorError, Style, counters_agree, tsc};
use super::offer::Offer;
use super::session::{Session, SessionConfig, SessionError};
use super::startup::Startup;
use super::tally::{Block, Tally};
use crate::assembly::ThreadConfig;
use crate::bench::DiskCounts;
use crate::cli::disk::DiskConfig;
use crate::dataplane::CompletePath;
use crate::machine::layout;
use crate::observe::Interrupts;
use crate::virtio::NotifyPath;

/// How the probe bench is to run.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Times that every row is measured; the spread of the ratios is over these.
    pub rounds: usize,
    /// Round trips of each block at depth 1; at depth 32 twice as many requests.
    pub requests: u32,
    /// Window of the polling rows, in microseconds; 0: no such rows.
    pub poll_us: u32,
    /// Host CPUs of the vCPU and of the I/O threads.
    pub pin: Option<(usize, usize)>,
    /// Only rows whose name ("read-1 fast-mmio+irqfd null") contains this.
    pub filter: Option<String>,
    /// Whose VMM is measured beside ours.
    pub peer: Option<PeerVmm>,
}

impl fmt::Display for ProbeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProbeConfig { rounds, requests, poll_us, .. } = self;
        write!(
            f,
            "probe: every path, {rounds} rounds of {requests} requests, polling rows with {poll_us} us"
        )?;
        match self.pin {
            Some((vcpu, io)) => write!(f, ", vCPU on CPU {vcpu}, I/O threads on CPU {io}"),
            None => write!(f, ", nothing pinned"),
        }
    }
}

/// Somebody else's VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerVmm {
    /// qemu-system-x86_64, with the same guest.
    Qemu,
}

/// One disk to be compared: a path, a backend, and the thread that serves it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) path: Path,
    pub(super) backend: &'static str,
    pub(super) poll_us: u32,
    pub(super) thread: usize,
}

impl Subject {
    /// As `--filter` sees it.
    fn name(&self, job: Job) -> String {
        let poll = if self.poll_us > 0 { " poll" } else { "" };
        format!("{} {} {}{poll}", job.name, self.path, self.backend)
    }

    /// `common` with what names the row.
    fn row(&self, job: Job, common: Row) -> Row {
        let wait = if self.poll_us > 0 { Style::MemoryPoll } else { Style::Blocking };
        Row {
            job: job.name.into(),
            notify: Some(self.path.notify.to_string()),
            complete: Some(self.path.complete.to_string()),
            backend: Some(self.backend.into()),
            wait: Some(wait.to_string()),
            depth: Some(job.depth.into()),
            poll_us: Some(self.poll_us.into()),
            ..common
        }
    }
}

/// I/O threads: one that sleeps at once, one that polls first, one with an io_uring.
const SLEEPING: usize = 0;
const POLLING: usize = 1;
const URING: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    name: &'static str,
    depth: u32,
}

const JOBS: [Job; 2] = [Job { name: "read-512-1", depth: 1 }, Job { name: "read-512-32", depth: 32 }];
const FLOOR_JOB: &str = "floor";
const FLOORS: [(Style, Answer); 7] = [
    (Style::Blocking, Answer::Irqfd),
    (Style::Blocking, Answer::SignalMsi),
    (Style::Blocking, Answer::IrqLine),
    (Style::BusyPoll, Answer::Irqfd),
    (Style::MemoryPoll, Answer::Irqfd),
    (Style::MemoryPollKick, Answer::Irqfd),
    (Style::Exit, Answer::Irqfd),
];

/// Every subject there could be, and why this host does not offer it; `None`: it does.
fn subjects(config: &ProbeConfig, offer: &Offer) -> Vec<(Subject, Option<String>)> {
    let path = |notify, complete| Path { notify, complete };
    let sleeping = |path| Subject { path, backend: "null", poll_us: 0, thread: SLEEPING };
    let completes =
        [CompletePath::Irqfd, CompletePath::SignalMsi, CompletePath::IrqLine, CompletePath::Resample];
    let notifies = NotifyPath::NAMES.map(|(_, notify)| notify);
    let mut all: Vec<_> = notifies
        .iter()
        .flat_map(|&notify| completes.iter().map(move |&complete| sleeping(path(notify, complete))))
        .collect();
    let best = path(NotifyPath::FastMmio, CompletePath::Irqfd);
    let other = path(NotifyPath::FastMmio, CompletePath::SignalMsi);
    if config.poll_us > 0 {
        let polling = |path| Subject { path, backend: "null", poll_us: config.poll_us, thread: POLLING };
        all.extend([polling(best), polling(other)]);
    }
    all.push(Subject { path: best, backend: "sync", poll_us: 0, thread: SLEEPING });
    all.push(Subject { path: best, backend: "io_uring", poll_us: 0, thread: URING });
    all.into_iter()
        .map(|subject| (offer.lacks(&subject), subject))
        .map(|(why, subject)| (subject, why))
        .collect()
}

/// Why the bench could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The guest.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A block.
    #[error("{0}: {1}")]
    Block(String, #[source] SessionError),
    /// The floor.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// Nothing left to measure.
    #[error("no row's name contains {0:?}; names look like \"read-512-1 fast-mmio+irqfd null\"")]
    Filter(String),
}

/// Size of each disk.
pub(super) const DISK_BYTES: u64 = 16 << 20;

fn disk(subject: &Subject, offer: &Offer) -> DiskConfig {
    let store = match (subject.backend, &offer.scratch) {
        ("null", _) | (_, Err(_)) => format!("size={DISK_BYTES}"),
        (_, Ok(scratch)) => format!("path={},readonly", scratch.0.display().to_string().replace(',', ",,")),
    };
    let Subject { path, backend, thread, .. } = subject;
    let text = format!(
        "backend={backend},{store},notify={},complete={},iothread={thread},queue-size=256",
        path.notify, path.complete
    );
    text.parse().expect("every part is one that --disk knows")
}

/// Runs the bench; `progress(done, all, what)` is called before every block.
///
/// # Errors
/// See [`ProbeError`].
pub fn run(config: &ProbeConfig, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<Report, ProbeError> {
    let begun = std::time::Instant::now();
    let started_unix = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let interrupts = Interrupts::now().unwrap_or_default();
    let ticks_per_second = ticks_per_second();
    let startup = Startup::measure(ticks_per_second)?;
    let offer = Offer::of_this_host();
    let (subjects, absent): (Vec<_>, Vec<_>) =
        subjects(config, &offer).into_iter().partition(|(_, why)| why.is_none());
    let subjects: Vec<_> = subjects.into_iter().map(|(subject, _)| subject).collect();
    let io_cpu = config.pin.map(|(_, io)| io);
    let thread = |poll_us: u32| ThreadConfig { poll_max_ns: u64::from(poll_us) * 1000, cpu: io_cpu };
    let mut session = Session::start(SessionConfig {
        disks: subjects.iter().map(|subject| disk(subject, &offer)).collect(),
        threads: vec![thread(0), thread(config.poll_us), thread(0)],
        cpus: 1,
        vcpu_pins: config.pin.map(|(vcpu, _)| vcpu).into_iter().collect(),
    })?;
    let mut bench = Bench {
        floor: Floor::new(&mut session, io_cpu)?,
        ticks_per_second,
        agree: counters_agree(&mut session)?,
        session,
        config,
        subjects,
        absent: absent.into_iter().filter_map(|(subject, why)| Some((subject, why?))).collect(),
    };
    bench.set_up()?;
    let mut rows = bench.measure(progress)?;
    fill_ratios(&mut rows);
    let run = RunFacts {
        started_unix,
        took_s: begun.elapsed().as_secs_f64(),
        rounds: config.rounds as u64,
        vcpus: 1,
        memory_bytes: layout::RAM_MIN,
        disk_bytes: Some(DISK_BYTES),
        disk: Some("null: no bytes are moved; sync, io_uring: a file in memory".into()),
        first_instruction_ns: startup.first_instruction_ns,
        resident_bytes: startup.resident_bytes,
        ..RunFacts::default()
    }
    .with_interrupts(&Interrupts::now().unwrap_or_default().since(&interrupts));
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}

struct Bench<'a> {
    floor: Floor,
    session: Session,
    config: &'a ProbeConfig,
    subjects: Vec<Subject>,
    absent: Vec<(Subject, String)>,
    ticks_per_second: f64,
    /// Whether the guest's counter is ours, so that the two halves can be told apart.
    agree: bool,
}

/// What a block is of.
#[derive(Clone, Copy)]
enum Work {
    Floor(Style, Answer),
    Disk(Job, usize),
}

impl Work {
    fn job(self) -> Option<Job> {
        match self {
            Work::Floor(..) => None,
            Work::Disk(job, _) => Some(job),
        }
    }
}

impl Bench<'_> {
    fn set_up(&mut self) -> Result<(), SessionError> {
        for n in 0..self.subjects.len() {
            let level = self.subjects[n].path.complete.is_level();
            let setup = Plan {
                kind: kind::SETUP,
                device: n as u32,
                queues: 1,
                // One plain vector each; a stamped one would cost the handler instructions that the floor has not.
                vector: if level { vector::INTX + n as u32 } else { vector::PLAIN + 2 * n as u32 },
                flags: if level { flag::INTX } else { 0 },
                ..Plan::default()
            };
            self.session.run(setup)?;
        }
        Ok(())
    }

    fn measure(&mut self, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<Vec<Row>, ProbeError> {
        let mut works: Vec<Vec<Work>> =
            vec![FLOORS.iter().map(|&(style, answer)| Work::Floor(style, answer)).collect()];
        works.extend(JOBS.map(|job| (0..self.subjects.len()).map(|n| Work::Disk(job, n)).collect()));
        if let Some(filter) = &self.config.filter {
            for (n, works) in works.iter_mut().enumerate() {
                // The floor stays: every row is compared with it.
                works.retain(|&work| n == 0 || self.name(work).contains(filter));
            }
            if works[1..].iter().all(Vec::is_empty) {
                return Err(ProbeError::Filter(filter.clone()));
            }
        }
        let mut tallies: Vec<Vec<Tally>> =
            works.iter().map(|works| works.iter().map(|_| Tally::new()).collect()).collect();
        let all = self.config.rounds * works.iter().map(Vec::len).sum::<usize>();
        let mut done = 0;
        for (group, works) in works.iter().enumerate() {
            // Once before the rounds, unmeasured: first touches, first exits, a closed polling window.
            for &work in works {
                self.block(work, true)?;
            }
            let order = Order {
                jobs: vec![()],
                paths: vec![self.subjects[0].path; works.len()],
                rounds: self.config.rounds,
            };
            for step in order.steps() {
                progress(done, all, &self.name(works[step.path]));
                let block = self.block(works[step.path], false)?;
                tallies[group][step.path].add(&block, self.ticks_per_second);
                done += 1;
            }
        }
        let mut rows = Vec::new();
        for (works, tallies) in works.iter().zip(&tallies) {
            rows.extend(works.iter().zip(tallies).map(|(&work, tally)| self.row(work, tally)));
            if let Some(job) = works.iter().find_map(|work| work.job()) {
                rows.extend(self.absent_rows(job));
            }
        }
        stand_on_floors(&mut rows);
        Ok(rows)
    }

    fn name(&self, work: Work) -> String {
        match work {
            Work::Floor(style, answer) => format!("{FLOOR_JOB} {style} {answer}"),
            Work::Disk(job, n) => self.subjects[n].name(job),
        }
    }

    fn row(&self, work: Work, tally: &Tally) -> Row {
        let text = |value: &dyn std::fmt::Display| Some(value.to_string());
        let tallied = tally.row(self.ticks_per_second, matches!(work, Work::Disk(..)));
        let common = Row { guest: "probe".into(), queues: Some(1), ..tallied };
        match work {
            Work::Floor(style, answer) => Row {
                job: FLOOR_JOB.into(),
                notify: text(if style == Style::Exit { &NotifyPath::Exit } else { &NotifyPath::Mmio }),
                complete: text(&answer),
                wait: text(&style),
                queues: None,
                depth: Some(1),
                ..common
            },
            Work::Disk(job, n) => self.subjects[n].row(job, common),
        }
    }

    /// The rows of `job` that this host has not.
    fn absent_rows(&self, job: Job) -> impl Iterator<Item = Row> {
        let filter = self.config.filter.as_deref().unwrap_or("");
        let wanted = self.absent.iter().filter(move |(subject, _)| subject.name(job).contains(filter));
        wanted.map(move |(subject, why)| {
            let common = Row { guest: "probe".into(), queues: Some(1), ..Row::default() };
            Row { not_here: Some(why.clone()), ..subject.row(job, common) }
        })
    }

    fn block(&mut self, work: Work, warm_up: bool) -> Result<Block, ProbeError> {
        let requests = if warm_up { self.config.requests / 10 + 1 } else { self.config.requests };
        let block = match work {
            Work::Floor(style, answer) => self.floor_block(style, answer, requests),
            Work::Disk(job, n) => self.disk_block(job, n, requests),
        };
        block.map_err(|error| ProbeError::Block(self.name(work), error))
    }

    fn exits(&self) -> u64 {
        self.session.parts().exits.iter().map(|exits| exits.total()).sum()
    }

    /// All exits, those that KVM handled by itself included; `None`: KVM does not tell.
    fn all_exits(&self) -> Option<u64> {
        self.session.parts().exits.iter().map(|exits| exits.all_exits()).sum()
    }

    fn waits(&self) -> u64 {
        let load = |handle: &crate::dataplane::LoopHandle| {
            handle.counters().waits.load(std::sync::atomic::Ordering::Relaxed)
        };
        self.session.parts().loops.iter().map(load).sum()
    }

    fn floor_block(&mut self, style: Style, answer: Answer, requests: u32) -> Result<Block, SessionError> {
        let (exits, all_exits) = (self.exits(), self.all_exits());
        let plan = self.floor.begin(style, answer, requests);
        let outcome = self.session.run(plan)?;
        let stamps = self.floor.end(style);
        let samples = self.session.samples(0, &outcome);
        let mut block = Block {
            round_trip: samples.iter().map(|sample| sample.seen.into()).collect(),
            ticks: outcome.tsc_end - outcome.tsc_begin,
            requests: outcome.completed.into(),
            kicks: outcome.kicks,
            guest_interrupts: outcome.interrupts,
            exits_to_user: self.exits() - exits,
            exits: since(self.all_exits(), all_exits),
            ..Block::default()
        };
        if self.agree && stamps.len() == samples.len() {
            for (sample, &seen) in samples.iter().zip(&stamps) {
                block.kick.push(seen.saturating_sub(sample.start));
                block.ring_back.push((sample.start + u64::from(sample.seen)).saturating_sub(seen));
            }
        }
        Ok(block)
    }

    fn disk_block(&mut self, job: Job, n: usize, requests: u32) -> Result<Block, SessionError> {
        let disk = self.session.parts().disks[n].clone();
        let (before, waits, exits) = (DiskCounts::of(&disk), self.waits(), self.exits());
        let all_exits = self.all_exits();
        let plan = Plan {
            kind: kind::IO,
            device: n as u32,
            depth: job.depth,
            requests: if job.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
            ..Plan::default()
        };
        let outcome = self.session.run(plan)?;
        let samples = self.session.samples(0, &outcome);
        Ok(Block {
            round_trip: samples.iter().map(|sample| sample.done.into()).collect(),
            ticks: outcome.tsc_end - outcome.tsc_begin,
            requests: outcome.completed.into(),
            kicks: outcome.kicks,
            guest_interrupts: outcome.interrupts,
            disk: DiskCounts::of(&disk).since(&before),
            waits: self.waits() - waits,
            exits_to_user: self.exits() - exits,
            exits: since(self.all_exits(), all_exits),
            ..Block::default()
        })
    }
}

fn since(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

/// Tells every row at depth 1 how far above the bare ping-pong of its kind it stands.
fn stand_on_floors(rows: &mut [Row]) {
    let floors: Vec<Row> = rows.iter().filter(|row| row.job == FLOOR_JOB).cloned().collect();
    for row in rows.iter_mut().filter(|row| row.depth == Some(1) && row.job != FLOOR_JOB) {
        let wait = row.wait.clone();
        let same = |floor: &&Row| {
            floor.wait == wait
                && (floor.complete == row.complete || floor.complete.as_deref() == Some("irqfd"))
        };
        let best = floors.iter().filter(same).max_by_key(|floor| floor.complete == row.complete);
        row.floor_p50_ns = best.and_then(|floor| floor.p50_ns);
        row.floor_ratio = match (row.p50_ns, row.floor_p50_ns) {
            (Some(p50), Some(floor)) if floor > 0 => Some(p50 as f64 / floor as f64),
            _ => None,
        };
    }
}

/// Counts the time-stamp counter against the clock for 50 ms.
fn ticks_per_second() -> f64 {
    let (begun, first) = (std::time::Instant::now(), tsc());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let ticks = tsc() - first;
    ticks as f64 / begun.elapsed().as_secs_f64()
}
