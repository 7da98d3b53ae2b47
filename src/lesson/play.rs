use std::sync::atomic::Ordering;

use super::counts::Counts;
use super::model::{Action, Disk, Lesson, Step};
use super::steps;
use crate::backend::{BackendKind, DiskOptions};
use crate::bench::DiskCounts;
use crate::bench::probe::{Session, SessionConfig, SessionError};
use crate::bench::probe_abi::Outcome;
use crate::dataplane::QueueCounts;
use crate::vm::{DiskConfig, IoThreadChoice, ThreadConfig};

/// Why a lesson could not be run.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A key of a disk has no such value.
    #[error("lesson {number}: {key}={value} does not exist")]
    Disk {
        /// The lesson.
        number: usize,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The guest failed.
    #[error("lesson {number}: {source}")]
    Session {
        /// The lesson.
        number: usize,
        /// Why.
        source: SessionError,
    },
}

/// Runs the steps of a lesson for the probe, on a VM of its own, and counts each of them.
///
/// # Errors
/// No usable /dev/kvm, or the guest failed.
pub fn play(lesson: &Lesson) -> Result<Counts, PlayError> {
    let number = lesson.number;
    let disks = lesson.disks.iter().enumerate().map(|(n, disk)| config(number, n, disk));
    let threads = lesson
        .disks
        .iter()
        .map(|disk| ThreadConfig { poll_max_ns: u64::from(disk.poll_us) * 1000, cpu: None });
    let disks = disks.collect::<Result<Vec<_>, _>>()?;
    let levels: Vec<_> = disks.iter().map(|disk| disk.complete.is_level()).collect();
    let config = SessionConfig { disks, threads: threads.collect(), cpus: 1, ..SessionConfig::default() };
    let run = || {
        let mut session = Session::start(config)?;
        let mut counts = Counts::default();
        for step in &lesson.steps {
            counts.extend(counted(&mut session, step, levels[step.disk])?);
        }
        Ok(counts)
    };
    run().map_err(|source| PlayError::Session { number, source })
}

fn config(number: usize, n: usize, disk: &Disk) -> Result<DiskConfig, PlayError> {
    let wrong = |key, value: &str| PlayError::Disk { number, key, value: value.into() };
    // Nothing is moved: what is counted are the notifications.
    let options = DiskOptions {
        kind: BackendKind::Null,
        size: Some(64 << 20),
        path: None,
        readonly: false,
        direct: false,
        delay_us: 0,
    };
    Ok(DiskConfig {
        notify: disk.notify.parse().map_err(|_| wrong("notify", &disk.notify))?,
        complete: disk.complete.parse().map_err(|()| wrong("complete", &disk.complete))?,
        moderation: disk.moderate.parse().map_err(|()| wrong("moderate", &disk.moderate))?,
        iothread: if disk.iothread { IoThreadChoice::Index(n) } else { IoThreadChoice::None },
        ..DiskConfig::new(options)
    })
}

/// Everything that grows, at one moment.
#[derive(Clone, Copy, Default)]
struct Moment {
    disk: DiskCounts,
    queue: QueueCounts,
    ioeventfd: Option<u64>,
    exits_to_vmm: u64,
    commits: u64,
    waits: u64,
}

impl Moment {
    fn now(session: &Session, disk: usize) -> Moment {
        let parts = session.parts();
        let device = &parts.disks[disk];
        Moment {
            disk: DiskCounts::of(device),
            queue: device.counters().first().map(|queue| queue.counts()).unwrap_or_default(),
            ioeventfd: device.kicks_ioeventfd(0),
            exits_to_vmm: parts.exits.iter().map(|exits| exits.total()).sum(),
            commits: parts.routes.commits(),
            waits: parts.loops.iter().map(|thread| thread.counters().waits.load(Ordering::Relaxed)).sum(),
        }
    }
}

fn counted(session: &mut Session, step: &Step, level: bool) -> Result<Vec<(String, u64)>, SessionError> {
    session.run(steps::set_up(step, level))?;
    if matches!(step.action, Action::StoreOldPlace | Action::StoreNewPlace) {
        steps::move_bar(session, step)?;
    }
    let before = Moment::now(session, step.disk);
    let outcome = steps::run(session, step)?;
    let after = Moment::now(session, step.disk);
    Ok(named(step, &outcome, &before, &after))
}

fn named(step: &Step, outcome: &Outcome, before: &Moment, after: &Moment) -> Vec<(String, u64)> {
    let disk = after.disk.since(&before.disk);
    let queue = |of: fn(&QueueCounts) -> u64| of(&after.queue) - of(&before.queue);
    let mut counts = vec![
        ("requests", u64::from(outcome.completed)),
        ("kicks", outcome.kicks),
        ("kicks-not-needed", outcome.kicks_suppressed),
        ("guest-interrupts", outcome.interrupts),
        ("masks", outcome.masks),
        ("moves", outcome.routes),
        ("outcome", outcome.value),
        ("exits-to-vmm", after.exits_to_vmm - before.exits_to_vmm),
        ("kicks-by-exit", disk.kicks_exit),
        ("kicks-missed", disk.kicks_missed),
        ("irqfd", disk.irqfd),
        ("signal-msi", disk.signal_msi),
        ("intx", disk.intx),
        ("interrupts", disk.interrupts()),
        ("interrupts-not-wanted", disk.suppressed),
        ("held", disk.held),
        ("merged", disk.merged),
        ("expired", disk.expired),
        ("wake-ups", queue(|counts| counts.wakeups)),
        ("empty-wake-ups", queue(|counts| counts.spurious)),
        ("publications", queue(|counts| counts.batches)),
        ("device-calls", disk.syscalls),
        ("waits", after.waits - before.waits),
        ("system-calls", disk.syscalls + after.waits - before.waits),
        ("route-commits", after.commits - before.commits),
    ];
    if let (Some(now), Some(then)) = (after.ioeventfd, before.ioeventfd) {
        counts.push(("ioeventfd", now - then));
    }
    counts.into_iter().map(|(what, count)| (format!("{}.{what}", step.name), count)).collect()
}
