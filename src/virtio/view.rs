use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dataplane::{Interrupt, InterruptLines, QueueCounters};
use crate::kvm::IoeventfdSpec;

use super::{NotifyPath, VirtioBlk};

/// A device as a reader wants it, at one moment.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// "disk0".
    pub name: String,
    /// `device_status` as the driver reads it.
    pub status: u8,
    /// Features in force, 0 before FEATURES_OK.
    pub features: u64,
    /// How kicks are to reach the host.
    pub notify: NotifyPath,
    /// What the host refused last and the device does without.
    pub trouble: Option<String>,
    /// The queues.
    pub queues: Vec<QueueView>,
}

/// One queue of a [`DeviceView`].
#[derive(Clone, Debug)]
pub struct QueueView {
    /// The driver has enabled it.
    pub enabled: bool,
    /// It runs at a loop.
    pub running: bool,
    /// Descriptors.
    pub size: u16,
    /// MSI-X table entry, [`crate::dataplane::NO_VECTOR`] for none.
    pub vector: u16,
    /// The ioeventfd armed for it.
    pub doorbell: Option<IoeventfdSpec>,
    /// Kicks that came by exit.
    pub kicks_exit: u64,
    /// Of these, kicks that an ioeventfd should have caught: not 0 means that a doorbell does not match.
    pub kicks_missed: u64,
}

impl VirtioBlk {
    /// What it was made as.
    pub fn config(&self) -> &super::BlkConfig {
        &self.config
    }

    /// The interrupt lines: vectors, path and counts.
    pub fn lines(&self) -> &Arc<InterruptLines> {
        &self.lines
    }

    /// The counters of each queue.
    pub fn counters(&self) -> &[Arc<QueueCounters>] {
        &self.counters
    }

    /// The interrupt of each queue, and last that of the configuration.
    pub fn interrupts(&self) -> Vec<Interrupt> {
        let state = self.state();
        let queues = state.common.queues.iter().map(|queue| queue.interrupt.clone());
        queues.chain([self.config_interrupt.clone()]).collect()
    }

    /// Whether writes may complete before they are durable, as the driver last chose.
    pub fn writeback(&self) -> bool {
        self.block.writeback.load(Ordering::Relaxed)
    }

    /// A consistent look at the registers.
    pub fn view(&self) -> DeviceView {
        let state = self.state();
        let queues = state.common.queues.iter().zip(&state.slots).enumerate().map(|(n, (queue, slot))| {
            let (kicks_exit, kicks_missed) = self.kicks[n].counts();
            QueueView {
                enabled: queue.enabled,
                running: slot.running.is_some(),
                size: queue.size,
                vector: queue.interrupt.vector(),
                doorbell: state.doorbells.armed(n),
                kicks_exit,
                kicks_missed,
            }
        });
        DeviceView {
            name: self.config.name.clone(),
            status: state.common.status() | self.health.status(),
            features: state.common.features(),
            notify: state.doorbells.path(),
            trouble: state.trouble.clone(),
            queues: queues.collect(),
        }
    }
}
