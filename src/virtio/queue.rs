use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddress;

use crate::dataplane::{Interrupt, NO_VECTOR, QueueLayout};

/// The registers of one queue, as the driver wrote them.
///
/// They hold any value, because a driver reads back what it wrote and writes a 64-bit address in halves. When the queue
/// is to run, they become a [`Queue`] of the virtio-queue crate: only that type knows which sizes and alignments virtio
/// allows.
#[derive(Debug)]
pub(super) struct QueueRegs {
    max_size: u16,
    pub(super) size: u16,
    pub(super) enabled: bool,
    /// The driver asked for a reset of this queue alone (virtio 1.2, 2.6.1) that is not over.
    pub(super) resetting: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) interrupt: Interrupt,
}

impl QueueRegs {
    pub(super) fn new(max_size: u16, interrupt: Interrupt) -> QueueRegs {
        QueueRegs {
            max_size,
            size: max_size,
            enabled: false,
            resetting: false,
            desc: 0,
            driver: 0,
            device: 0,
            interrupt,
        }
    }

    pub(super) fn reset(&mut self) {
        self.interrupt.set_vector(NO_VECTOR);
        *self = QueueRegs::new(self.max_size, self.interrupt.clone());
    }

    /// The queue that the registers describe.
    ///
    /// # Errors
    /// The size is not a power of two or is too large, or a ring is misaligned (virtio 1.2, 2.7).
    pub(super) fn queue(&self, features: u64) -> Result<Queue, Error> {
        let mut queue = Queue::new(self.max_size)?;
        // try_set_*: the plain setters keep the old value where the new one is invalid, and only log it.
        queue.try_set_size(self.size)?;
        queue.try_set_desc_table_address(GuestAddress(self.desc))?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver))?;
        queue.try_set_used_ring_address(GuestAddress(self.device))?;
        queue.set_event_idx(features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0);
        queue.set_ready(self.enabled);
        Ok(queue)
    }

    /// The same for the dataplane, whose [`crate::dataplane::Ring`] also checks that the rings are in RAM.
    ///
    /// # Errors
    /// As [`QueueRegs::queue`].
    pub(super) fn layout(&self, features: u64) -> Result<QueueLayout, Error> {
        let queue = self.queue(features)?;
        Ok(QueueLayout {
            size: queue.size(),
            desc: queue.desc_table(),
            avail: queue.avail_ring(),
            used: queue.used_ring(),
            event_idx: queue.event_idx_enabled(),
            indirect: features >> VIRTIO_RING_F_INDIRECT_DESC & 1 != 0,
        })
    }
}
