use std::fmt;

use super::super::probe_abi::{Plan, flag, idle, kind, vector};
use super::super::report::{Report, Row, RunFacts, SCHEMA, fill_ratios};
use super::super::{HostFacts, Plan as Order};
use super::floor::{Answer, Floor, FloorError, Style, counters_agree, tsc};
use super::halves::{Halves, halves};
use super::no_irqchip::{self, NoIrqchip};
use super::offer::Offer;
use super::peer::Peer;
use super::qemu::{PEER, PeerSubject, SUBJECTS};
use super::session::{Session, SessionConfig, SessionError};
use super::startup::Startup;
use super::subjects::{DISK_BYTES, JOBS, Job, Subject, disk, subjects};
use super::tally::{Block, Tally};
use crate::assembly::ThreadConfig;
use crate::bench::DiskCounts;
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

pub(super) const FLOOR_JOB: &str = "floor";
const FLOORS: [(Style, Answer); 7] = [
    (Style::Blocking, Answer::Irqfd),
    (Style::Blocking, Answer::SignalMsi),
    (Style::Blocking, Answer::IrqLine),
    (Style::BusyPoll, Answer::Irqfd),
    (Style::MemoryPoll, Answer::Irqfd),
    (Style::MemoryPollKick, Answer::Irqfd),
    (Style::Exit, Answer::Irqfd),
];

/// Longest block that is planned for.
const BLOCK_SECONDS: f64 = 0.15;

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
        no_irqchip: NoIrqchip::new(config.pin.map(|(vcpu, _)| vcpu)),
        peer: config.peer.map(|PeerVmm::Qemu| {
            Peer::start(offer.scratch.as_ref().map(|scratch| scratch.0.as_path()), config.pin)
        }),
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
        peer: bench.peer.and_then(|peer| Some(peer.ok()?.version)),
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
    /// Or why this host has none.
    no_irqchip: Result<NoIrqchip, String>,
    /// If one was asked for; or why it is not here.
    peer: Option<Result<Peer, String>>,
    ticks_per_second: f64,
    /// Whether the guest's counter is ours, so that the two halves can be told apart.
    agree: bool,
}

/// What a block is of.
#[derive(Clone, Copy)]
enum Work {
    Floor(Style, Answer),
    KvmInterrupt,
    Disk(Job, usize),
    Peer(Job, usize),
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
        if let Some(Ok(_)) = self.peer {
            // Its guest and ours take turns: neither spins while the other works.
            self.session.set_idle(idle::HALT);
        }
        Ok(())
    }

    fn works(&self) -> Vec<Vec<Work>> {
        let mut floor: Vec<_> = FLOORS.iter().map(|&(style, answer)| Work::Floor(style, answer)).collect();
        floor.extend(self.no_irqchip.iter().map(|_| Work::KvmInterrupt));
        let peers = self.peer.iter().flatten().next().map_or(0, |peer| peer.subjects.len());
        let disks = JOBS.map(|job| {
            let ours = (0..self.subjects.len()).map(|n| Work::Disk(job, n));
            ours.chain((0..peers).map(|n| Work::Peer(job, n))).collect()
        });
        std::iter::once(floor).chain(disks).collect()
    }

    fn measure(&mut self, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<Vec<Row>, ProbeError> {
        let mut works = self.works();
        if let Some(filter) = &self.config.filter {
            for (n, works) in works.iter_mut().enumerate() {
                // The floor stays: every row is compared with it.
                works.retain(|&work| n == 0 || self.name(work).contains(filter));
            }
            let no_peer = matches!(self.peer, Some(Err(_)));
            if works[1..].iter().all(Vec::is_empty) && !no_peer {
                return Err(ProbeError::Filter(filter.clone()));
            }
        }
        let mut tallies: Vec<Vec<Tally>> =
            works.iter().map(|works| works.iter().map(|_| Tally::new()).collect()).collect();
        let all = self.config.rounds * works.iter().map(Vec::len).sum::<usize>();
        let mut done = 0;
        for (group, works) in works.iter().enumerate() {
            let sizes = works.iter().map(|&work| self.warm_up(work)).collect::<Result<Vec<_>, _>>()?;
            let order = Order {
                jobs: vec![()],
                paths: vec![self.subjects[0].path; works.len()],
                rounds: self.config.rounds,
            };
            for step in order.steps() {
                progress(done, all, &self.name(works[step.path]));
                let block = self.block(works[step.path], sizes[step.path])?;
                tallies[group][step.path].add(&block, self.ticks_per_second);
                done += 1;
            }
        }
        let mut rows = Vec::new();
        let jobs = std::iter::once(None).chain(JOBS.map(Some));
        for ((works, tallies), job) in works.iter().zip(&tallies).zip(jobs) {
            rows.extend(works.iter().zip(tallies).map(|(&work, tally)| self.row(work, tally)));
            rows.extend(match job {
                Some(job) => self.absent_rows(job),
                None => self
                    .no_irqchip
                    .as_ref()
                    .err()
                    .map(|why| no_irqchip::absent(why.clone()))
                    .into_iter()
                    .collect(),
            });
        }
        stand_on_floors(&mut rows);
        Ok(rows)
    }

    fn name(&self, work: Work) -> String {
        match work {
            Work::Floor(style, answer) => format!("{FLOOR_JOB} {style} {answer}"),
            Work::KvmInterrupt => format!("{FLOOR_JOB} exit kvm-interrupt"),
            Work::Disk(job, n) => self.subjects[n].name(job),
            Work::Peer(job, n) => self.peer_subject(n).name(job),
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
            Work::KvmInterrupt => no_irqchip::row(common),
            Work::Disk(job, n) => self.subjects[n].row(job, common),
            Work::Peer(job, n) => self.peer_subject(n).row(job, common),
        }
    }

    /// The rows of `job` that this host has not.
    fn absent_rows(&self, job: Job) -> Vec<Row> {
        let filter = self.config.filter.as_deref().unwrap_or("");
        let row = |why: &String| Row {
            guest: "probe".into(),
            queues: Some(1),
            not_here: Some(why.clone()),
            ..Row::default()
        };
        let ours = self.absent.iter().filter(|(subject, _)| subject.name(job).contains(filter));
        let mut rows: Vec<_> = ours.map(|(subject, why)| subject.row(job, row(why))).collect();
        match &self.peer {
            Some(Ok(peer)) => {
                let theirs = peer.absent.iter().filter(|(subject, _)| subject.name(job).contains(filter));
                rows.extend(theirs.map(|(subject, why)| subject.row(job, row(why))));
            }
            // One row for all, under the first job.
            Some(Err(why)) if job == JOBS[0] => {
                let peer = Some(PEER.into());
                rows.push(Row { job: job.name.into(), peer, queues: None, ..row(why) });
            }
            Some(Err(_)) | None => {}
        }
        rows
    }

    /// Once before the rounds, unmeasured: first touches, first exits, a closed polling window. Answers how many
    /// requests a block of this kind gets: as configured, but fewer on a path so slow that it would take longer than
    /// [`BLOCK_SECONDS`] (level interrupts go through the host's work queue, which may be busy).
    fn warm_up(&mut self, work: Work) -> Result<u32, ProbeError> {
        let few = self.config.requests / 40 + 1;
        let block = self.block(work, few)?;
        let seconds = block.ticks as f64 / self.ticks_per_second;
        let fitting = (BLOCK_SECONDS / seconds * f64::from(few)) as u32;
        Ok(self.config.requests.min(fitting.max(few)))
    }

    fn block(&mut self, work: Work, requests: u32) -> Result<Block, ProbeError> {
        let block = match work {
            Work::Floor(style, answer) => self.floor_block(style, answer, requests),
            Work::Disk(job, n) => self.disk_block(job, n, requests),
            Work::KvmInterrupt => match &mut self.no_irqchip {
                Ok(machine) => machine.block(requests),
                Err(why) => Err(SessionError::Ended(why.clone())),
            },
            Work::Peer(job, n) => match self.peer.iter_mut().flatten().next() {
                Some(peer) => peer.block(job.plan(n, requests)),
                None => Err(SessionError::Ended("it is not here".into())),
            },
        };
        block.map_err(|error| ProbeError::Block(self.name(work), error))
    }

    /// The peer's device `n`; asked for only if there is one.
    fn peer_subject(&self, n: usize) -> &'static PeerSubject {
        self.peer.iter().flatten().find_map(|peer| peer.subjects.get(n).copied()).unwrap_or(&SUBJECTS[0])
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
        let outcome = self.session.run(job.plan(n, requests))?;
        let samples = self.session.samples(0, &outcome);
        let block = Block {
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
        };
        if job.depth > 1 || !self.agree {
            return Ok(block);
        }
        let Halves { kick, ring_back } = halves(&mut self.session, &disk, job.plan(n, requests))?;
        Ok(Block { kick, ring_back, ..block })
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
