//! A snapshot of a live VM: the tables in KVM and in the devices.
//!
//! Everything is read from published counters, from /proc, or under locks that no I/O thread takes, so a snapshot never
//! delays a request. One exception is a vector's lock, which KVM_SIGNAL_MSI takes, too: while the vector is not masked,
//! a snapshot holds it for a few instructions.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{MemoryParts, MemoryView, MsiView, PostedView, ThreadView, VfioView};
use crate::backend::Disk;
use crate::dataplane::{LoopHandle, NO_VECTOR, QueueCounts, Sent};
use crate::kvm::{IoAddress, IoeventfdSpec, Match, Route, Routes};
use crate::vfio::{VectorReport, VfioPci};
use crate::virtio::{DeviceView, VirtioBlk};

/// Name and version of the JSON.
pub const INSPECT_SCHEMA: &str = "doorbell-inspect/1";

/// The sections; `all` stands for all of them.
pub const SECTIONS: [&str; 7] = ["routes", "doorbells", "vectors", "queues", "threads", "memory", "vfio"];

/// The parts of a VM that a snapshot reads.
#[derive(Default)]
pub struct VmParts {
    /// Disks.
    pub disks: Vec<Arc<VirtioBlk>>,
    /// What they are made of, in their order; `None`: another process runs its queues.
    pub images: Vec<Option<Arc<Disk>>>,
    /// The GSI table.
    pub routes: Option<Arc<Routes>>,
    /// I/O threads, and the main loop.
    pub loops: Vec<LoopHandle>,
    /// Guest RAM.
    pub memory: Option<MemoryParts>,
    /// Passed-through devices.
    pub vfio: Vec<Arc<VfioPci>>,
}

/// A snapshot of a VM; sections that were not requested are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VmView {
    /// [`INSPECT_SCHEMA`].
    pub schema: String,
    /// Process ID of the VMM.
    pub pid: u32,
    /// The GSI routing table.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub routes: Option<RoutesView>,
    /// Notify registers and their ioeventfds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doorbells: Option<Vec<DoorbellView>>,
    /// MSI-X vectors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vectors: Option<Vec<VectorView>>,
    /// Queues.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queues: Option<Vec<QueueState>>,
    /// Threads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threads: Option<Vec<ThreadView>>,
    /// Guest RAM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<MemoryView>,
    /// Passed-through devices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vfio: Option<Vec<VfioView>>,
    /// Beside vectors and passed-through devices: whether their interrupts can be posted here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub posted_interrupts: Option<PostedView>,
}

/// The table behind `KVM_SET_GSI_ROUTING`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesView {
    /// How often KVM_SET_GSI_ROUTING was called.
    pub commits: u64,
    /// In GSI order; GSIs 0 to 15 have two entries.
    pub entries: Vec<RouteView>,
}

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// The GSI.
    pub gsi: u32,
    /// "pic-master", "pic-slave", "ioapic" or "msi".
    pub kind: String,
    /// Pin, for controllers.
    pub pin: Option<u32>,
    /// Message, for MSI.
    pub msi: Option<MsiView>,
    /// The vector that holds the GSI: "disk0 vector 1", "0000:00:10.0 MSI-X 0".
    pub holder: Option<String>,
}

/// A queue's notify register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorbellView {
    /// "disk0".
    pub device: String,
    /// Queue.
    pub queue: usize,
    /// The path that is configured.
    pub notify: String,
    /// Whether an ioeventfd is armed.
    pub armed: bool,
    /// "mmio" or "pio". This and the next three are `None` without an ioeventfd.
    pub bus: Option<String>,
    /// Guest-physical address, or port.
    pub address: Option<u64>,
    /// Bytes that a store must have; 0: any number.
    pub length: Option<u8>,
    /// Value that a store must have (datamatch); `None`: any.
    pub value: Option<u64>,
    /// Kicks that an ioeventfd caught; `None` if /proc/self/fdinfo does not show them.
    pub hits: Option<u64>,
    /// Kicks that came by exit.
    pub kicks_exit: u64,
    /// Of these, kicks that an ioeventfd should have caught.
    pub kicks_missed: u64,
}

/// One MSI-X vector of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorView {
    /// "disk0".
    pub device: String,
    /// Table entry.
    pub vector: usize,
    /// What interrupts through it: "queue 0", "config".
    pub sources: Vec<String>,
    /// The path that is configured.
    pub complete: String,
    /// MSI-X is on for the device.
    pub enabled: bool,
    /// The entry's mask bit.
    pub entry_masked: bool,
    /// Whether it is masked in effect: by its bit, by the function mask, or because MSI-X is off.
    pub masked: bool,
    /// The pending bit.
    pub pending: bool,
    /// The message that the driver wrote.
    pub msi: MsiView,
    /// The GSI that it holds.
    pub gsi: Option<u32>,
    /// Whether an irqfd joins its eventfd to the GSI now.
    pub irqfd: bool,
    /// Interrupts sent through it.
    pub interrupts: Sent,
}

/// One queue of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// "disk0".
    pub device: String,
    /// Queue.
    pub queue: usize,
    /// The driver has enabled it.
    pub enabled: bool,
    /// A loop runs it.
    pub running: bool,
    /// The name of the thread that runs it.
    pub thread: String,
    /// Its rings are packed: positions below have the wrap counter in bit 15.
    #[serde(default)]
    pub packed: bool,
    /// Descriptors.
    pub size: u16,
    /// MSI-X table entry that it interrupts through; `None`: the driver set none.
    pub vector: Option<u16>,
    /// Index of the next available entry that the device will take, after its last batch.
    pub next_avail: u16,
    /// Index of the next used entry that the device will write.
    pub next_used: u16,
    /// How it interrupted the guest, INTx included.
    pub interrupts: Sent,
    /// Requests in flight at the backend.
    pub in_flight: u32,
    /// `avail.idx`, the next entry that the driver will fill; `None` while the rings cannot be read, and in a packed ring.
    pub driver_avail: Option<u16>,
    /// Used index at which the driver wants an interrupt (EVENT_IDX).
    pub used_event: Option<u16>,
    /// Available index at which the device wants a kick (EVENT_IDX).
    pub avail_event: Option<u16>,
    /// Counts of its work.
    #[serde(flatten)]
    pub counts: QueueCounts,
}

impl VmParts {
    /// Reads `section`, one of [`SECTIONS`] or `all`; `None`: there is no such section.
    pub fn look(&self, section: &str) -> Option<VmView> {
        let wanted = |name: &str| section == name || section == "all";
        if !SECTIONS.into_iter().any(wanted) {
            return None;
        }
        let views: Vec<_> = self.disks.iter().map(|disk| (disk, disk.view())).collect();
        let of_disks = || views.iter().map(|(disk, view)| (&***disk, view));
        Some(VmView {
            schema: INSPECT_SCHEMA.into(),
            pid: std::process::id(),
            routes: wanted("routes").then(|| self.routes()),
            doorbells: wanted("doorbells").then(|| of_disks().flat_map(doorbells).collect()),
            vectors: wanted("vectors").then(|| of_disks().flat_map(vectors).collect()),
            queues: wanted("queues").then(|| of_disks().flat_map(queues).collect()),
            threads: wanted("threads").then(|| {
                let owners = of_disks().flat_map(|(_, view)| owners(view)).collect::<Vec<_>>();
                super::threads::of_this_process(&owners, &self.loops)
            }),
            memory: self.memory.as_ref().filter(|_| wanted("memory")).map(MemoryParts::view),
            vfio: wanted("vfio").then(|| self.vfio.iter().map(|device| VfioView::of(device)).collect()),
            posted_interrupts: (wanted("vectors") || wanted("vfio")).then(PostedView::here),
        })
    }

    fn routes(&self) -> RoutesView {
        let Some(routes) = &self.routes else { return RoutesView::default() };
        let holders = self.holders();
        let entry = |(gsi, route)| {
            let (kind, pin, msi) = match route {
                Route::Pic { chip: 0, pin } => ("pic-master", Some(pin), None),
                Route::Pic { pin, .. } => ("pic-slave", Some(pin), None),
                Route::Ioapic { pin } => ("ioapic", Some(pin), None),
                Route::Msi(message) => ("msi", None, Some(MsiView::from(message))),
            };
            let holder = msi.is_some().then(|| holders.get(&gsi).cloned()).flatten();
            RouteView { gsi, kind: kind.into(), pin, msi, holder }
        };
        RoutesView { commits: routes.commits(), entries: routes.entries().into_iter().map(entry).collect() }
    }

    /// The owner of each GSI: device and vector.
    fn holders(&self) -> HashMap<u32, String> {
        let of_disks = self.disks.iter().flat_map(|disk| {
            let held = |(n, vector): (usize, &Arc<crate::kvm::Vector>)| {
                Some((vector.gsi()?.0, format!("{} vector {n}", disk.config().name)))
            };
            disk.device_interrupts().vectors().iter().enumerate().filter_map(held).collect::<Vec<_>>()
        });
        let of_vfio = self.vfio.iter().flat_map(|device| {
            let armed = device.report().into_iter().filter(|vector| vector.armed);
            let held =
                |vector: VectorReport| Some((vector.gsi?, format!("{} {}", device.bdf(), vector.name())));
            armed.filter_map(held).collect::<Vec<_>>()
        });
        of_disks.chain(of_vfio).collect()
    }
}

fn doorbells((disk, view): (&VirtioBlk, &DeviceView)) -> Vec<DoorbellView> {
    let one = |(n, queue): (usize, &crate::virtio::QueueView)| {
        let spec = queue.doorbell;
        let (bus, address) = match spec {
            Some(IoeventfdSpec { address: IoAddress::Mmio(address), .. }) => (Some("mmio"), Some(address)),
            Some(IoeventfdSpec { address: IoAddress::Pio(port), .. }) => (Some("pio"), Some(port.into())),
            None => (None, None),
        };
        let (length, value) = match spec.map(|spec| spec.matching) {
            Some(Match::Any) => (Some(0), None),
            Some(Match::Length(length)) => (Some(length), None),
            Some(Match::Value(length, value)) => (Some(length), Some(value)),
            None => (None, None),
        };
        DoorbellView {
            device: view.name.clone(),
            queue: n,
            notify: view.notify.to_string(),
            armed: spec.is_some(),
            bus: bus.map(String::from),
            address,
            length,
            value,
            hits: disk.kicks_ioeventfd(n),
            kicks_exit: queue.kicks_exit,
            kicks_missed: queue.kicks_missed,
        }
    };
    view.queues.iter().enumerate().filter(|(_, queue)| queue.enabled).map(one).collect()
}

fn vectors((disk, view): (&VirtioBlk, &DeviceView)) -> Vec<VectorView> {
    let interrupts = disk.interrupts();
    let name = |n: usize| if n + 1 == interrupts.len() { "config".into() } else { format!("queue {n}") };
    let one = |(n, (vector, entry)): (usize, (&Arc<crate::kvm::Vector>, &crate::kvm::VectorState))| {
        let ours = || interrupts.iter().enumerate().filter(|(_, i)| usize::from(i.vector()) == n);
        let sent = ours().fold(Sent::default(), |sum, (_, interrupt)| sum + interrupt.counts().sent());
        let gsi = vector.gsi();
        VectorView {
            device: view.name.clone(),
            vector: n,
            sources: ours().map(|(source, _)| name(source)).collect(),
            complete: disk.device_interrupts().path().to_string(),
            enabled: view.msix_enabled,
            entry_masked: entry.masked,
            masked: entry.masked || view.function_masked || !view.msix_enabled,
            pending: vector.pending(),
            msi: entry.message.into(),
            gsi: gsi.map(|(gsi, _)| gsi),
            irqfd: gsi.is_some_and(|(_, assigned)| assigned),
            interrupts: sent,
        }
    };
    disk.device_interrupts().vectors().iter().zip(&view.table).enumerate().map(one).collect()
}

fn queues((disk, view): (&VirtioBlk, &DeviceView)) -> Vec<QueueState> {
    let interrupts = disk.interrupts();
    let one = |(n, (queue, counters)): (usize, (&crate::virtio::QueueView, &Arc<_>))| {
        let counters: &crate::dataplane::QueueCounters = counters;
        let position = counters.position();
        QueueState {
            device: view.name.clone(),
            queue: n,
            enabled: queue.enabled,
            running: queue.running,
            thread: queue.thread.clone(),
            packed: queue.packed,
            size: queue.size,
            vector: (queue.vector != NO_VECTOR).then_some(queue.vector),
            next_avail: position.avail,
            next_used: position.used,
            in_flight: position.in_flight,
            interrupts: interrupts.get(n).map(|interrupt| interrupt.counts().sent()).unwrap_or_default(),
            driver_avail: queue.rings.and_then(|rings| rings.avail_index),
            used_event: queue.rings.map(|rings| rings.used_event),
            avail_event: queue.rings.map(|rings| rings.avail_event),
            counts: counters.counts(),
        }
    };
    view.queues.iter().zip(disk.counters()).enumerate().map(one).collect()
}

/// Pairs of thread name and running queue.
fn owners(view: &DeviceView) -> Vec<(String, String)> {
    let running = view.queues.iter().enumerate().filter(|(_, queue)| queue.running);
    running.map(|(n, queue)| (queue.thread.clone(), format!("{} queue {n}", view.name))).collect()
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
