use super::super::PathPair;
use super::super::probe_abi::{GuestJob, flag, kind, op, order, wait};
use super::super::report::Row;
use super::floor::Style;
use super::host_support::HostSupport;
use super::run::ProbeConfig;
use crate::backend::{BackendKind, DiskOptions};
use crate::dataplane::{CompletePath, Moderation};
use crate::virtio::NotifyPath;
use crate::vm::{DiskConfig, IoThreadChoice};

/// Reads at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub name: &'static str,
    pub depth: u32,
    /// As Linux submits under an application: one request and one kick decision at a time. Else what one interrupt
    /// brought back goes out again as one batch.
    pub one_by_one: bool,
}

pub(super) const JOBS: [Job; 3] = [
    Job { name: "read-512-1", depth: 1, one_by_one: false },
    Job { name: "read-512-32", depth: 32, one_by_one: false },
    Job { name: "read-512-32-one-by-one", depth: 32, one_by_one: true },
];

/// The time that the application takes before each of its requests, one by one.
const THINK_NS: f64 = 1500.0;

impl Job {
    /// The block of it on a device; `requests` at depth 1, else twice as many.
    pub fn plan(self, device: usize, requests: u32, ticks_per_second: f64) -> GuestJob {
        let think = (THINK_NS * ticks_per_second / 1e9) as u64;
        GuestJob {
            kind: kind::IO,
            device: device as u32,
            depth: self.depth,
            requests: if self.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
            flags: if self.one_by_one { flag::ONE_BY_ONE } else { 0 },
            gap: if self.one_by_one { think } else { 0 },
            ..GuestJob::default()
        }
    }
}

/// One disk to be compared: a path, a backend, and the thread that serves it.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub path: PathPair,
    pub backend: BackendKind,
    pub poll_us: u32,
    pub thread: usize,
    pub moderation: Moderation,
}

impl Variant {
    /// As `--filter` sees it.
    pub fn name(&self, job: Job) -> String {
        let poll = if self.poll_us > 0 { " poll" } else { "" };
        let moderated = if self.moderation == Moderation::Off { "" } else { " moderated" };
        format!("{} {} {}{poll}{moderated}", job.name, self.path, self.backend)
    }

    /// Whether `job` is measured on it. One by one, only what moderation changes is of interest.
    pub fn does(&self, job: Job) -> bool {
        !job.one_by_one
            || self.path.notify == NotifyPath::FastMmio && self.path.complete == CompletePath::Irqfd
    }

    /// `common` with what names the row.
    pub fn row(&self, job: Job, common: Row) -> Row {
        let wait = if self.poll_us > 0 { Style::MemoryPoll } else { Style::Blocking };
        Row {
            job: job.name.into(),
            notify: Some(self.path.notify.to_string()),
            complete: Some(self.path.complete.to_string()),
            backend: Some(self.backend.to_string()),
            wait: Some(wait.to_string()),
            depth: Some(job.depth.into()),
            poll_us: Some(self.poll_us.into()),
            moderate: Some(self.moderation.to_string()),
            ..common
        }
    }
}

/// I/O threads: one that sleeps at once, one that polls first, one with an io_uring.
const SLEEPING: usize = 0;
const POLLING: usize = 1;
const URING: usize = 2;

/// Every variant there could be, and why this host does not support it; `None`: it does.
pub(super) fn variants(config: &ProbeConfig, support: &HostSupport) -> Vec<(Variant, Option<String>)> {
    let path = |notify, complete| PathPair { notify, complete };
    // The comparison of paths has every completion interrupt: what is compared is the cost of one.
    let off = Moderation::Off;
    let sleeping =
        |path| Variant { path, backend: BackendKind::Null, poll_us: 0, thread: SLEEPING, moderation: off };
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
        let polling = |path| Variant { poll_us: config.poll_us, thread: POLLING, ..sleeping(path) };
        all.extend([polling(best), polling(other)]);
    }
    all.push(Variant { backend: BackendKind::Sync, ..sleeping(best) });
    all.push(Variant { backend: BackendKind::IoUring, thread: URING, ..sleeping(best) });
    // And what a user gets: each way of working on the best path once more, with interrupts held where that pays.
    let moderated = all.iter().filter(|variant| variant.path == best);
    let moderated = moderated.map(|variant| Variant { moderation: Moderation::Auto, ..variant.clone() });
    all.extend(moderated.collect::<Vec<_>>());
    all.into_iter()
        .map(|variant| (support.lacks(&variant), variant))
        .map(|(why, variant)| (variant, why))
        .collect()
}

/// Size of each disk.
pub(super) const DISK_BYTES: u64 = 16 << 20;

/// The disk of a variant.
pub(super) fn disk(variant: &Variant, support: &HostSupport) -> DiskConfig {
    let kind = variant.backend;
    // Without a scratch file the variants that need one are not in the list (`HostSupport::lacks`).
    let path = match &support.scratch {
        Ok(scratch) if kind.uses_file() => Some(scratch.0.clone()),
        _ => None,
    };
    let size = path.is_none().then_some(DISK_BYTES);
    let options = DiskOptions { readonly: path.is_some(), path, kind, size, direct: false };
    DiskConfig {
        iothread: IoThreadChoice::Index(variant.thread),
        notify: variant.path.notify,
        complete: variant.path.complete,
        moderation: variant.moderation,
        ..DiskConfig::new(options)
    }
}
