use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::dataplane::{Interrupt, NO_VECTOR, QueueLayout};

/// What the driver said about one queue, unchecked.
#[derive(Debug)]
pub(super) struct QueueRegs {
    max_size: u16,
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) interrupt: Interrupt,
}

impl QueueRegs {
    pub(super) fn new(max_size: u16, interrupt: Interrupt) -> QueueRegs {
        QueueRegs { max_size, size: max_size, enabled: false, desc: 0, driver: 0, device: 0, interrupt }
    }

    pub(super) fn reset(&mut self) {
        self.interrupt.set_vector(NO_VECTOR);
        *self = QueueRegs::new(self.max_size, self.interrupt.clone());
    }

    /// The rings, if size and alignment are as virtio 1.2, 2.7 wants them. Whether they are in RAM is for
    /// [`crate::dataplane::Ring`] to find out.
    pub(super) fn layout(&self, features: u64) -> Option<QueueLayout> {
        let sized = self.size.is_power_of_two() && self.size <= self.max_size;
        let aligned =
            self.desc.is_multiple_of(16) && self.driver.is_multiple_of(2) && self.device.is_multiple_of(4);
        (sized && aligned).then_some(QueueLayout {
            size: self.size,
            desc: self.desc,
            avail: self.driver,
            used: self.device,
            event_idx: features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0,
            indirect: features >> VIRTIO_RING_F_INDIRECT_DESC & 1 != 0,
        })
    }
}
