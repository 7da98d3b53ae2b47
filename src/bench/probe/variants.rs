use super::super::PathPair;
use super::super::report::Row;
use super::config::{DISK_BYTES, ProbeConfig};
use super::floor::Style;
use super::host_support::HostSupport;
use super::work::Workload;
use crate::backend::{BackendKind, DiskOptions};
use crate::dataplane::{CompletePath, Moderation};
use crate::virtio::NotifyPath;
use crate::vm::{DiskConfig, IoThreadChoice};

/// One compared disk: its paths, its backend, and the thread that serves it.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub path: PathPair,
    pub backend: BackendKind,
    /// How long the backend takes.
    pub delay_us: u32,
    pub poll_us: u32,
    pub thread: usize,
    pub moderation: Moderation,
    /// Its ring is packed.
    pub packed: bool,
    /// It is the same as another, under another name.
    pub again: bool,
}

impl Variant {
    /// The name that `--filter` matches.
    pub fn name(&self, workload: Workload) -> String {
        let poll = if self.poll_us > 0 { " poll" } else { "" };
        let moderated = if self.moderation == Moderation::Off { "" } else { " moderated" };
        let packed = if self.packed { " packed" } else { "" };
        format!("{} {} {}{poll}{packed}{moderated}", workload.name, self.path, self.backend())
    }

    fn backend(&self) -> String {
        let delay = if self.delay_us > 0 { format!(",delay={}us", self.delay_us) } else { String::new() };
        format!("{}{delay}{}", self.backend, if self.again { " again" } else { "" })
    }

    /// Whether `workload` is measured on it. Workloads that submit one by one run only on the path on which moderation is measured.
    pub fn runs(&self, workload: Workload) -> bool {
        !workload.one_by_one
            || self.path.notify == NotifyPath::FastMmio && self.path.complete == CompletePath::Irqfd
    }

    /// Why it cannot be measured on this host; `None` if it can.
    pub fn unsupported(&self, host: &HostSupport) -> Option<String> {
        let length = matches!(self.path.notify, NotifyPath::FastMmio | NotifyPath::Pio)
            .then_some(host.any_length.as_ref());
        let resample = (self.path.complete == CompletePath::Resample).then_some(host.resample.as_ref());
        let uring = (self.thread == URING).then_some(host.io_uring.as_ref());
        let scratch = self.backend.uses_file().then(|| host.scratch.as_ref().map(|_| &()));
        [length, resample, uring, scratch].into_iter().flatten().find_map(|found| found.err().cloned())
    }

    /// `common` with the columns that name the row.
    pub fn row(&self, workload: Workload, common: Row) -> Row {
        let wait = if self.poll_us > 0 { Style::MemoryPoll } else { Style::Blocking };
        Row {
            job: workload.name.into(),
            notify: Some(self.path.notify.to_string()),
            complete: Some(self.path.complete.to_string()),
            backend: Some(self.backend()),
            wait: Some(wait.to_string()),
            depth: Some(workload.depth.into()),
            poll_us: Some(self.poll_us.into()),
            moderate: Some(self.moderation.to_string()),
            ring: Some(if self.packed { "packed" } else { "split" }.into()),
            ..common
        }
    }
}

// Indices of the I/O threads: the first sleeps at once, the second polls first, the third has an io_uring.
const SLEEPING: usize = 0;
const POLLING: usize = 1;
const URING: usize = 2;

/// About what a fast NVMe disk takes for a read.
const DELAY_US: u32 = 80;

/// Every variant, and why this host does not support it; `None`: it does.
pub(super) fn variants(config: &ProbeConfig, support: &HostSupport) -> Vec<(Variant, Option<String>)> {
    let path = |notify, complete| PathPair { notify, complete };
    // Paths are compared without moderation: every completion interrupts, so the cost of one interrupt is compared.
    let off = Moderation::Off;
    let sleeping = |path| Variant {
        path,
        backend: BackendKind::Null,
        delay_us: 0,
        poll_us: 0,
        thread: SLEEPING,
        moderation: off,
        packed: false,
        again: false,
    };
    let completes =
        [CompletePath::Irqfd, CompletePath::SignalMsi, CompletePath::IrqLine, CompletePath::Resample];
    let notifies = NotifyPath::NAMES.map(|(_, notify)| notify);
    let mut all: Vec<_> = notifies
        .iter()
        .flat_map(|&notify| completes.iter().map(move |&complete| sleeping(path(notify, complete))))
        .collect();
    let best = path(NotifyPath::FastMmio, CompletePath::Irqfd);
    if config.self_test {
        all = [false, true].map(|again| Variant { again, ..sleeping(best) }).to_vec();
        return with_reasons(all, support);
    }
    let other = path(NotifyPath::FastMmio, CompletePath::SignalMsi);
    if config.poll_us > 0 {
        let polling = |path| Variant { poll_us: config.poll_us, thread: POLLING, ..sleeping(path) };
        all.extend([polling(best), polling(other)]);
    }
    all.push(Variant { backend: BackendKind::Sync, ..sleeping(best) });
    all.push(Variant { backend: BackendKind::IoUring, thread: URING, ..sleeping(best) });
    // A device with a delay, as a disk has, so that there is something to wait for.
    all.push(Variant { delay_us: DELAY_US, thread: URING, ..sleeping(best) });
    all.push(Variant { packed: true, ..sleeping(best) });
    // Every variant with split rings on the best path once more, with the default moderation: interrupts are held back where that pays.
    let moderated = all.iter().filter(|variant| variant.path == best && !variant.packed);
    let moderated = moderated.map(|variant| Variant { moderation: Moderation::Auto, ..variant.clone() });
    all.extend(moderated.collect::<Vec<_>>());
    with_reasons(all, support)
}

fn with_reasons(all: Vec<Variant>, support: &HostSupport) -> Vec<(Variant, Option<String>)> {
    let with_reason = |variant: Variant| {
        let reason = variant.unsupported(support);
        (variant, reason)
    };
    all.into_iter().map(with_reason).collect()
}

/// The disk of a variant.
pub(super) fn disk(variant: &Variant, support: &HostSupport) -> DiskConfig {
    let kind = variant.backend;
    // Variants that need the scratch file are not in the list if there is none (`Variant::unsupported`).
    let path = match &support.scratch {
        Ok(scratch) if kind.uses_file() => Some(scratch.0.clone()),
        _ => None,
    };
    let size = path.is_none().then_some(DISK_BYTES);
    let options = DiskOptions {
        readonly: path.is_some(),
        path,
        kind,
        size,
        direct: false,
        block_size: None,
        delay_us: variant.delay_us,
    };
    DiskConfig {
        iothread: IoThreadChoice::Index(variant.thread),
        notify: variant.path.notify,
        complete: variant.path.complete,
        moderation: variant.moderation,
        packed: variant.packed,
        ..DiskConfig::new(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_costs_only_the_rows_that_need_it() {
        let no = |why: &str| Err(why.to_string());
        let support = HostSupport {
            scratch: Err("file".into()),
            any_length: no("length"),
            resample: no("resample"),
            io_uring: no("uring"),
        };
        let unsupported = |notify, complete, backend| {
            let path = PathPair { notify, complete };
            let thread = if backend == BackendKind::IoUring { URING } else { SLEEPING };
            Variant {
                path,
                backend,
                delay_us: 0,
                poll_us: 0,
                thread,
                moderation: Moderation::Off,
                packed: false,
                again: false,
            }
            .unsupported(&support)
        };
        use {CompletePath::*, NotifyPath::*};
        assert_eq!(unsupported(Mmio, Irqfd, BackendKind::Null), None);
        assert_eq!(unsupported(Exit, SignalMsi, BackendKind::Null), None);
        assert_eq!(unsupported(Pio, Irqfd, BackendKind::Null).as_deref(), Some("length"));
        assert_eq!(unsupported(Mmio, Resample, BackendKind::Null).as_deref(), Some("resample"));
        assert_eq!(unsupported(Mmio, Irqfd, BackendKind::IoUring).as_deref(), Some("uring"));
        assert_eq!(unsupported(Mmio, Irqfd, BackendKind::Sync).as_deref(), Some("file"));
    }
}
