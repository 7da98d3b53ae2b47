use std::time::Instant;

use super::super::Schedule;
use super::super::probe_abi::{GuestJob, flag, idle, kind, vector};
use super::super::ratios::fill_ratios;
use super::super::report::{Report, Row, RunFacts, SCHEMA};
use super::bench::Bench;
use super::config::{DISK_BYTES, PeerVmm, ProbeConfig};
use super::error::{ProbeError, SessionError};
use super::floor::{Answer, Floor, Style, counters_agree, tsc};
use super::host_support::HostSupport;
use super::no_irqchip::{self, NoIrqchip};
use super::peer::Peer;
use super::row_stats::RowStats;
use super::rows::fill_floor_ratios;
use super::session::{Session, SessionConfig};
use super::startup::Startup;
use super::variants::{disk, variants};
use super::work::{WORKLOADS, Work};
use crate::host::log;
use crate::host::{HostFacts, HostLoad, ProcInterrupts};
use crate::machine::layout;
use crate::vm::ThreadConfig;

const FLOORS: [(Style, Answer); 7] = [
    (Style::Blocking, Answer::Irqfd),
    (Style::Blocking, Answer::SignalMsi),
    (Style::Blocking, Answer::IrqLine),
    (Style::BusyPoll, Answer::Irqfd),
    (Style::MemoryPoll, Answer::Irqfd),
    (Style::MemoryPollKick, Answer::Irqfd),
    (Style::Exit, Answer::Irqfd),
];

/// Runs the bench; `progress(done, all, what)` is called before every block.
///
/// # Errors
/// See [`ProbeError`].
pub fn run(config: &ProbeConfig, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<Report, ProbeError> {
    let begun = std::time::Instant::now();
    let started_unix = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let load = HostLoad::now();
    let interrupts = ProcInterrupts::now().unwrap_or_default();
    let ticks_per_second = ticks_per_second();
    let startup = Startup::measure(ticks_per_second, config.sandbox)?;
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
        sandbox: config.sandbox,
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
    let (mut rows, ended) = bench.measure(begun, progress)?;
    fill_ratios(&mut rows);
    rows.iter_mut().for_each(Row::keep_supported_percentiles);
    let run = RunFacts {
        started_unix,
        took_s: begun.elapsed().as_secs_f64(),
        rounds: ended.rounds as u64,
        incomplete: ended.why.map(|why| format!("{why}, after {} of {} rounds", ended.rounds, config.rounds)),
        vcpus: 1,
        memory_bytes: layout::RAM_MIN,
        disk_bytes: Some(DISK_BYTES),
        disk: Some("null: no bytes are moved; sync, io_uring: a file in memory".into()),
        peer: bench.peer.and_then(|peer| Some(peer.ok()?.version)),
        first_instruction_ns: startup.first_instruction_ns,
        resident_bytes: startup.resident_bytes,
        ..RunFacts::default()
    }
    .with_load(&load)
    .with_interrupts(&ProcInterrupts::now().unwrap_or_default().since(&interrupts));
    Ok(Report { schema: SCHEMA.into(), host: HostFacts::here(), run, rows })
}

impl Bench<'_> {
    fn set_up(&mut self) -> Result<(), SessionError> {
        for n in 0..self.variants.len() {
            let level = self.variants[n].path.complete.is_level();
            let setup = GuestJob {
                kind: kind::SETUP,
                device: n as u32,
                queues: 1,
                // Plain vectors: the handler of a timestamped one would execute instructions that the floor does not.
                vector: if level { vector::INTX + n as u32 } else { vector::PLAIN + 2 * n as u32 },
                flags: if level { flag::INTX } else { 0 },
                ..GuestJob::default()
            };
            self.session.run(setup)?;
        }
        if let Some(Ok(_)) = self.peer {
            // Its guest and ours run in turn, so neither may spin while the other works.
            self.session.set_idle(idle::HALT);
        }
        Ok(())
    }

    fn works(&self) -> Vec<Vec<Work>> {
        // The floors differ; a self-test needs only the one that its rows are compared with.
        let floors = if self.config.self_test { &FLOORS[..1] } else { &FLOORS[..] };
        let mut floor: Vec<_> = floors.iter().map(|&(style, answer)| Work::Floor(style, answer)).collect();
        floor.extend(self.no_irqchip.iter().filter(|_| !self.config.self_test).map(|_| Work::KvmInterrupt));
        let peers = self.peer.iter().flatten().next().map_or(0, |peer| peer.variants.len());
        let disks = WORKLOADS.map(|workload| {
            let ours = (0..self.variants.len()).filter(|&n| self.variants[n].runs(workload));
            let ours = ours.map(|n| Work::Disk(workload, n));
            ours.chain((0..peers).map(|n| Work::Peer(workload, n))).collect()
        });
        std::iter::once(floor).chain(disks).collect()
    }

    fn measure(
        &mut self,
        begun: Instant,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<(Vec<Row>, Ended), ProbeError> {
        let mut works = self.works();
        if let Some(filter) = &self.config.filter {
            for (n, works) in works.iter_mut().enumerate() {
                // The floor is always measured: every row is compared with it.
                works.retain(|&work| n == 0 || self.name(work).contains(filter));
            }
            let no_peer = matches!(self.peer, Some(Err(_)));
            if works[1..].iter().all(Vec::is_empty) && !no_peer {
                return Err(ProbeError::Filter(filter.clone()));
            }
        }
        let mut stats: Vec<Vec<RowStats>> =
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
        // Every round measures the floors and all jobs, so a drift of the host hits a row and its floor alike.
        let schedule = Schedule { jobs: vec![()], paths: everything, rounds: self.config.rounds };
        let steps = schedule.steps();
        let mut ended = Ended { rounds: self.config.rounds, why: None };
        let pace = &self.config.pace;
        let mut peer_lost = false;
        for (done, step) in steps.iter().enumerate() {
            let (group, n) = schedule.paths[step.path];
            let work = works[group][n];
            let new_round = done.is_multiple_of(schedule.paths.len());
            ended.why = pace.cut(begun);
            if ended.why.is_some() || new_round && pace.exact_enough(&rounds(&works, &stats)) {
                ended.rounds = step.round;
                break;
            }
            progress(done, steps.len(), &self.name(work));
            let is_peer = matches!(work, Work::Peer(..));
            if is_peer && peer_lost {
                stats[group][n].lose();
                continue;
            }
            match self.block(work, sizes[step.path]) {
                Ok(block) => stats[group][n].add(&block, self.ticks_per_second),
                // If the reference VMM dies, only its rows are lost.
                Err(error) if is_peer => {
                    log::warn("bench", format_args!("{error}; its further rounds are lost"));
                    peer_lost = true;
                    stats[group][n].lose();
                }
                // Our VM cannot continue, but what it has measured is valid.
                Err(error) if step.round > 0 => {
                    ended = Ended { rounds: step.round, why: Some(error.to_string()) };
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if ended.rounds == 0 {
            let why = ended.why.unwrap_or_default();
            return Err(SessionError::Ended(format!("{why}, before its first round was over")).into());
        }
        stats.iter_mut().flatten().for_each(|stats| stats.keep(ended.rounds));
        let mut rows = Vec::new();
        let workloads = std::iter::once(None).chain(WORKLOADS.map(Some));
        for ((works, stats), workload) in works.iter().zip(&stats).zip(workloads) {
            rows.extend(works.iter().zip(stats).map(|(&work, stats)| self.row(work, stats)));
            rows.extend(match workload {
                Some(workload) => self.absent_rows(workload),
                None => self
                    .no_irqchip
                    .as_ref()
                    .err()
                    .map(|why| no_irqchip::absent(why.clone()))
                    .into_iter()
                    .collect(),
            });
        }
        fill_floor_ratios(&mut rows);
        Ok((rows, ended))
    }
}

/// How far a run came.
struct Ended {
    /// Whole rounds.
    rounds: usize,
    /// Why it ended early; `None`: it completed all rounds.
    why: Option<String>,
}

/// The rounds so far, for [`crate::bench::pace::Pace`].
fn rounds(works: &[Vec<Work>], stats: &[Vec<RowStats>]) -> Vec<Row> {
    let of_group = |(n, (works, stats)): (usize, (&Vec<Work>, &Vec<RowStats>))| {
        let row = move |(work, stats): (&Work, &RowStats)| {
            let depth =
                if let Work::Disk(workload, _) | Work::Peer(workload, _) = work { workload.depth } else { 1 };
            stats.rounds(Row { job: n.to_string(), depth: Some(depth.into()), ..Row::default() })
        };
        works.iter().zip(stats).map(row).collect::<Vec<_>>()
    };
    works.iter().zip(stats).enumerate().flat_map(of_group).collect()
}

/// Measures the time-stamp counter against the clock for 50 ms.
fn ticks_per_second() -> f64 {
    let (begun, first) = (std::time::Instant::now(), tsc());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let ticks = tsc() - first;
    ticks as f64 / begun.elapsed().as_secs_f64()
}
