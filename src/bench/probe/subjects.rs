use super::super::Path;
use super::super::probe_abi::{Plan, kind, op, order, wait};
use super::super::report::Row;
use super::floor::Style;
use super::offer::Offer;
use super::run::ProbeConfig;
use crate::cli::disk::DiskConfig;
use crate::dataplane::CompletePath;
use crate::virtio::NotifyPath;

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
    pub fn plan(self, device: usize, requests: u32) -> Plan {
        Plan {
            kind: kind::IO,
            device: device as u32,
            depth: self.depth,
            requests: if self.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
            ..Plan::default()
        }
    }
}

/// One disk to be compared: a path, a backend, and the thread that serves it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub path: Path,
    pub backend: &'static str,
    pub poll_us: u32,
    pub thread: usize,
}

impl Subject {
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

/// Every subject there could be, and why this host does not offer it; `None`: it does.
pub(super) fn subjects(config: &ProbeConfig, offer: &Offer) -> Vec<(Subject, Option<String>)> {
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

/// Size of each disk.
pub(super) const DISK_BYTES: u64 = 16 << 20;

/// The disk of a subject.
pub(super) fn disk(subject: &Subject, offer: &Offer) -> DiskConfig {
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
