use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddress;

use crate::dataplane::{Interrupt, NO_VECTOR, QueueLayout};

/// The registers of one queue, as the driver wrote them.
///
/// They hold any value, because a driver reads back what it wrote and writes a 64-bit address in halves. When the queue
/// is to run, they become a [`QueueLayout`], if virtio allows their size and alignments.
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

    /// The queue that the registers describe, for the dataplane, whose [`crate::dataplane::Ring`] also checks that the rings
    /// are in RAM.
    ///
    /// # Errors
    /// The size is too large, or that of a split queue is not a power of two; or a ring is misaligned (virtio 1.2, 2.7 and 2.8).
    pub(super) fn layout(&self, features: u64) -> Result<QueueLayout, Error> {
        let on = |bit: u32| features >> bit & 1 != 0;
        let packed = on(VIRTIO_F_RING_PACKED);
        if packed { self.check_packed() } else { self.check_split() }?;
        Ok(QueueLayout {
            packed,
            size: self.size,
            desc: self.desc,
            avail: self.driver,
            used: self.device,
            event_idx: on(VIRTIO_RING_F_EVENT_IDX),
            indirect: on(VIRTIO_RING_F_INDIRECT_DESC),
        })
    }

    fn check_split(&self) -> Result<(), Error> {
        let mut queue = Queue::new(self.max_size)?;
        // try_set_*: the plain setters keep the old value where the new one is invalid, and only log it.
        queue.try_set_size(self.size)?;
        queue.try_set_desc_table_address(GuestAddress(self.desc))?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver))?;
        queue.try_set_used_ring_address(GuestAddress(self.device))
    }

    /// The crate knows no packed queues: any size, and event suppression structures that are 4-byte aligned (virtio 1.2,
    /// 2.8.10.1).
    fn check_packed(&self) -> Result<(), Error> {
        match self {
            _ if !(1..=self.max_size).contains(&self.size) => Err(Error::InvalidSize),
            _ if !self.desc.is_multiple_of(16) => Err(Error::InvalidDescTableAlign),
            _ if !self.driver.is_multiple_of(4) => Err(Error::InvalidAvailRingAlign),
            _ if !self.device.is_multiple_of(4) => Err(Error::InvalidUsedRingAlign),
            _ => Ok(()),
        }
    }
}
