use std::fmt;

use super::super::Schedule;
use super::super::probe_abi::{GuestJob, flag, idle, kind, vector};
use super::super::report::{Report, Row, RunFacts, SCHEMA, fill_ratios};
use super::floor::{Answer, Floor, FloorError, Style, counters_agree, tsc};
use super::host_support::HostSupport;
use super::no_irqchip::{self, NoIrqchip};
use super::peer::Peer;
use super::qemu::{PeerSubject, SUBJECTS};
use super::row_stats::RowStats;
use super::rows::stand_on_floors;
use super::session::{Session, SessionConfig, SessionError};
use super::startup::Startup;
use super::variants::{DISK_BYTES, JOBS, Job, Variant, disk, variants};
use crate::host::{HostFacts, ProcInterrupts};
use crate::machine::layout;
use crate::vm::ThreadConfig;

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
    let interrupts = ProcInterrupts::now().unwrap_or_default();
    let ticks_per_second = ticks_per_second();
    let startup = Startup::measure(ticks_per_second)?;
    let support = HostSupport::of_this_host();
    let (variants, absent): (Vec<_>, Vec<_>) =
        variants(config, &support).into_iter().partition(|(_, why)| why.is_none());
    let variants: Vec<_> = variants.into_iter().map(|(variant, _)| variant).collect();
    let io_cpu = config.pin.map(|(_, io)| io);
    let thread = |poll_us: u32| ThreadConfig { poll_max_ns: u64::from(poll_us) * 1000, cpu: io_cpu };
    let mut session = Session::start(SessionConfig {
        disks: variants.iter().map(|variant| disk(variant, &support)).collect(),
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
        variants,
        absent: absent.into_iter().filter_map(|(variant, why)| Some((variant, why?))).collect(),
        no_irqchip: NoIrqchip::new(config.pin.map(|(vcpu, _)| vcpu)),
        peer: config.peer.map(|PeerVmm::Qemu| {
            Peer::start(support.scratch.as_ref().map(|scratch| scratch.0.as_path()), config.pin)
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
    .with_interrupts(&ProcInterrupts::now().unwrap_or_default().since(&interrupts));
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}

pub(super) struct Bench<'a> {
    pub floor: Floor,
    pub session: Session,
    pub config: &'a ProbeConfig,
    pub variants: Vec<Variant>,
    pub absent: Vec<(Variant, String)>,
    /// Or why this host has none.
    pub no_irqchip: Result<NoIrqchip, String>,
    /// If one was asked for; or why it is not here.
    pub peer: Option<Result<Peer, String>>,
    pub ticks_per_second: f64,
    /// Whether the guest's counter is ours, so that the two one_way can be told apart.
    pub agree: bool,
}

/// What a block is of.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Floor(Style, Answer),
    KvmInterrupt,
    Disk(Job, usize),
    Peer(Job, usize),
}

impl Bench<'_> {
    fn set_up(&mut self) -> Result<(), SessionError> {
        for n in 0..self.variants.len() {
            let level = self.variants[n].path.complete.is_level();
            let setup = GuestJob {
                kind: kind::SETUP,
                device: n as u32,
                queues: 1,
                // One plain vector each; a stamped one would cost the handler instructions that the floor has not.
                vector: if level { vector::INTX + n as u32 } else { vector::PLAIN + 2 * n as u32 },
                flags: if level { flag::INTX } else { 0 },
                ..GuestJob::default()
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
        let peers = self.peer.iter().flatten().next().map_or(0, |peer| peer.variants.len());
        let disks = JOBS.map(|job| {
            let ours =
                (0..self.variants.len()).filter(|&n| self.variants[n].does(job)).map(|n| Work::Disk(job, n));
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
        let mut tallies: Vec<Vec<RowStats>> =
            works.iter().map(|works| works.iter().map(|_| RowStats::new()).collect()).collect();
        let everything: Vec<_> = works
            .iter()
            .enumerate()
            .flat_map(|(group, works)| (0..works.len()).map(move |n| (group, n)))
            .collect();
        let sizes = everything
            .iter()
            .map(|&(group, n)| self.warm_up(works[group][n]))
            .collect::<Result<Vec<_>, _>>()?;
        // The floors and all jobs in every round: a drift of the machine hits a row and its floor alike.
        let order = Schedule { jobs: vec![()], paths: everything, rounds: self.config.rounds };
        let steps = order.steps();
        for (done, step) in steps.iter().enumerate() {
            let (group, n) = order.paths[step.path];
            let work = works[group][n];
            progress(done, steps.len(), &self.name(work));
            let block = self.block(work, sizes[step.path])?;
            tallies[group][n].add(&block, self.ticks_per_second);
        }
        let mut rows = Vec::new();
        let jobs = std::iter::once(None).chain(JOBS.map(Some));
        for ((works, tallies), job) in works.iter().zip(&tallies).zip(jobs) {
            rows.extend(works.iter().zip(tallies).map(|(&work, row_stats)| self.row(work, row_stats)));
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

    pub(super) fn name(&self, work: Work) -> String {
        match work {
            Work::Floor(style, answer) => format!("{FLOOR_JOB} {style} {answer}"),
            Work::KvmInterrupt => format!("{FLOOR_JOB} exit kvm-interrupt"),
            Work::Disk(job, n) => self.variants[n].name(job),
            Work::Peer(job, n) => self.peer_subject(n).name(job),
        }
    }

    /// The peer's device `n`; asked for only if there is one.
    pub(super) fn peer_subject(&self, n: usize) -> &'static PeerSubject {
        self.peer.iter().flatten().find_map(|peer| peer.variants.get(n).copied()).unwrap_or(&SUBJECTS[0])
    }
}

/// Counts the time-stamp counter against the clock for 50 ms.
fn ticks_per_second() -> f64 {
    let (begun, first) = (std::time::Instant::now(), tsc());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let ticks = tsc() - first;
    ticks as f64 / begun.elapsed().as_secs_f64()
}
