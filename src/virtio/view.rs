use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::dataplane::{DeviceInterrupts, Interrupt, ModerationSwitch, QueueCounters, QueueLayout};
use crate::kvm::{IoeventfdSpec, VectorState};

use super::{NotifyPath, VirtioBlk};

/// A snapshot of a device, for display.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// "disk0".
    pub name: String,
    /// `device_status` as the driver reads it.
    pub status: u8,
    /// Features in force, 0 before FEATURES_OK.
    pub features: u64,
    /// How kicks reach the host.
    pub notify: NotifyPath,
    /// The last error of a host call; the device works without what it asked for.
    pub last_error: Option<String>,
    /// MSI-X is on.
    pub msix_enabled: bool,
    /// All its vectors are masked.
    pub function_masked: bool,
    /// The MSI-X table as the driver wrote it.
    pub table: Vec<VectorState>,
    /// The queues.
    pub queues: Vec<QueueView>,
}

/// One queue of a [`DeviceView`].
#[derive(Clone, Debug)]
pub struct QueueView {
    /// The driver has enabled it.
    pub enabled: bool,
    /// A loop runs it.
    pub running: bool,
    /// The name of the thread that runs it.
    pub thread: String,
    /// Descriptors.
    pub size: u16,
    /// MSI-X table entry, [`crate::dataplane::NO_VECTOR`] for none.
    pub vector: u16,
    /// What its ioeventfd matches; `None`: no ioeventfd is armed.
    pub doorbell: Option<IoeventfdSpec>,
    /// Kicks that came by exit, since the device was made.
    pub kicks_exit: u64,
    /// Of these, kicks that an ioeventfd should have caught. Above 0, a doorbell does not match what the guest writes.
    pub kicks_missed: u64,
    /// The driver's words in the rings, while the queue is enabled and they lie in RAM.
    pub rings: Option<RingWords>,
}

/// The words of a queue's rings in guest memory (virtio 1.2, 2.7.6 and 2.7.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingWords {
    /// Next entry that the driver will fill.
    pub avail_index: u16,
    /// With EVENT_IDX: the used index at which the driver wants an interrupt.
    pub used_event: u16,
    /// Next entry that the device will fill, as the driver sees it.
    pub used_index: u16,
    /// With EVENT_IDX: the available index at which the device wants a kick.
    pub avail_event: u16,
}

impl RingWords {
    fn read(memory: &GuestMemoryMmap, layout: &QueueLayout) -> Option<RingWords> {
        let word = |base: u64, offset: u64| {
            let at = GuestAddress(base.checked_add(offset)?);
            memory.load::<u16>(at, Ordering::Relaxed).ok().map(u16::from_le)
        };
        let size = u64::from(layout.size);
        Some(RingWords {
            avail_index: word(layout.avail, 2)?,
            used_event: word(layout.avail, 4 + 2 * size)?,
            used_index: word(layout.used, 2)?,
            avail_event: word(layout.used, 4 + 8 * size)?,
        })
    }
}

impl VirtioBlk {
    /// The device's configuration.
    pub fn config(&self) -> &super::BlkConfig {
        &self.config
    }

    /// The interrupts of the device: vectors, path and counts.
    pub fn device_interrupts(&self) -> &Arc<DeviceInterrupts> {
        &self.interrupts
    }

    /// How the interrupts of its queues are held back; may be changed at any time.
    pub fn moderation(&self) -> &ModerationSwitch {
        &self.moderation
    }

    /// The counters of each queue.
    pub fn counters(&self) -> &[Arc<QueueCounters>] {
        &self.counters
    }

    /// The interrupt of each queue, then the configuration interrupt.
    pub fn interrupts(&self) -> Vec<Interrupt> {
        let state = self.state();
        let queues = state.common.queues.iter().map(|queue| queue.interrupt.clone());
        queues.chain([self.config_interrupt.clone()]).collect()
    }

    /// Kicks of queue `n` that an ioeventfd caught in the kernel; read from the kernel without side effects (proc(5),
    /// fdinfo). `None` if there is no /proc, or
    /// another process takes the kicks.
    pub fn kicks_ioeventfd(&self, n: usize) -> Option<u64> {
        // A backend in another process reads the eventfd, and with it the kernel's count.
        let ours = self.config.remote.is_none();
        ours.then(|| self.kicks.get(n)?.by_ioeventfd()).flatten()
    }

    /// Whether writes may complete before they are durable, as the driver last chose.
    pub fn writeback(&self) -> bool {
        self.block.writeback.load(Ordering::Relaxed)
    }

    /// A consistent snapshot of the registers.
    pub fn view(&self) -> DeviceView {
        let state = self.state();
        let features = state.common.features();
        let queues = state.common.queues.iter().zip(&state.slots).enumerate().map(|(n, (queue, slot))| {
            let (kicks_exit, kicks_missed) = self.kicks[n].counts();
            QueueView {
                enabled: queue.enabled,
                running: slot.running.is_some(),
                thread: self.loops[n % self.loops.len()].name().into(),
                size: queue.size,
                vector: queue.interrupt.vector(),
                doorbell: state.doorbells.armed(n),
                kicks_exit,
                kicks_missed,
                rings: queue
                    .enabled
                    .then(|| RingWords::read(&self.memory, &queue.layout(features).ok()?))
                    .flatten(),
            }
        });
        DeviceView {
            name: self.config.name.clone(),
            status: state.common.status() | self.device_status.status(),
            features,
            msix_enabled: state.msix.enabled(),
            function_masked: state.msix.function_masked(),
            table: (0..state.msix.vectors()).filter_map(|n| state.msix.entry(n)).collect(),
            notify: state.doorbells.path(),
            last_error: state.last_error.clone(),
            queues: queues.collect(),
        }
    }
}
