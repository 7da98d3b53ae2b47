use super::super::PathPair;
use super::super::probe_abi::{GuestJob, kind, op, order, wait};
use super::super::report::Row;
use super::floor::Style;
use super::host_support::HostSupport;
use super::run::ProbeConfig;
use crate::backend::{BackendKind, DiskOptions};
use crate::dataplane::CompletePath;
use crate::virtio::NotifyPath;
use crate::vm::{DiskConfig, IoThreadChoice};

/// Reads at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub name: &'static str,
    pub depth: u32,
}

pub(super) const JOBS: [Job; 2] =
    [Job { name: "read-512-1", depth: 1 }, Job { name: "read-512-32", depth: 32 }];

impl Job {
    /// The block of it on a device; `requests` at depth 1, else twice as many.
    pub fn plan(self, device: usize, requests: u32) -> GuestJob {
        GuestJob {
            kind: kind::IO,
            device: device as u32,
            depth: self.depth,
            requests: if self.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
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
}

impl Variant {
    /// As `--filter` sees it.
    pub fn name(&self, job: Job) -> String {
        let poll = if self.poll_us > 0 { " poll" } else { "" };
        format!("{} {} {}{poll}", job.name, self.path, self.backend)
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
    let sleeping = |path| Variant { path, backend: BackendKind::Null, poll_us: 0, thread: SLEEPING };
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
        let polling =
            |path| Variant { path, backend: BackendKind::Null, poll_us: config.poll_us, thread: POLLING };
        all.extend([polling(best), polling(other)]);
    }
    all.push(Variant { path: best, backend: BackendKind::Sync, poll_us: 0, thread: SLEEPING });
    all.push(Variant { path: best, backend: BackendKind::IoUring, poll_us: 0, thread: URING });
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
        ..DiskConfig::new(options)
    }
}
