//! The common configuration structure as a register file (virtio 1.2, 4.1.4.3): what the driver may read and write.
//! What follows from it is in `device` and `reconcile`.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};

use crate::dataplane::{Interrupt, NO_VECTOR};

use super::layout::COMMON_LEN;
use super::queue::QueueRegs;

pub(super) const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
/// The bits that a driver sets. DEVICE_NEEDS_RESET is the device's.
const DRIVER_BITS: u8 = (VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_FAILED) as u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
    /// `queue_notify_data`: VIRTIO_F_NOTIF_CONFIG_DATA is not offered, so it reads 0.
    NotOffered,
    QueueReset,
}

/// `struct virtio_pci_common_cfg`: offset, length, field.
const FIELDS: [(usize, usize, Field); 18] = [
    (0x00, 4, Field::DeviceFeatureSelect),
    (0x04, 4, Field::DeviceFeature),
    (0x08, 4, Field::DriverFeatureSelect),
    (0x0c, 4, Field::DriverFeature),
    (0x10, 2, Field::ConfigVector),
    (0x12, 2, Field::NumQueues),
    (0x14, 1, Field::Status),
    (0x15, 1, Field::Generation),
    (0x16, 2, Field::QueueSelect),
    (0x18, 2, Field::QueueSize),
    (0x1a, 2, Field::QueueVector),
    (0x1c, 2, Field::QueueEnable),
    (0x1e, 2, Field::QueueNotifyOff),
    (0x20, 8, Field::QueueDesc),
    (0x28, 8, Field::QueueDriver),
    (0x30, 8, Field::QueueDevice),
    (0x38, 2, Field::NotOffered),
    (0x3a, 2, Field::QueueReset),
];

/// What a write changed, for the device to react to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// The driver wrote status 0.
    pub reset: bool,
    /// FEATURES_OK was accepted just now.
    pub negotiated: bool,
    /// A queue has another vector.
    pub vector: bool,
    /// Status, a queue's enable bit or its reset bit changed: queues may have to start or stop.
    pub changed: bool,
}

/// The registers. Reads and writes of any width at any offset are safe: a write that covers a field in part is merged
/// with the field's present value.
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    queue_select: u16,
    pub(super) queues: Vec<QueueRegs>,
    config_interrupt: Interrupt,
}

impl Common {
    pub(super) fn new(offered: u64, queues: Vec<QueueRegs>, config_interrupt: Interrupt) -> Common {
        Common {
            offered,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            queue_select: 0,
            queues,
            config_interrupt,
        }
    }

    /// The status bits that the driver has set.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    /// The features in force: none before FEATURES_OK.
    pub(super) fn features(&self) -> u64 {
        if self.status & FEATURES_OK != 0 { self.accepted } else { 0 }
    }

    /// Back to power-on, vectors included (virtio 1.2, 4.1.5.1.2: NO_VECTOR after reset).
    pub(super) fn reset(&mut self) {
        self.accepted = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.status = 0;
        self.queue_select = 0;
        self.config_interrupt.set_vector(NO_VECTOR);
        self.queues.iter_mut().for_each(QueueRegs::reset);
    }

    /// All bytes as the driver reads them; `device_status` and `generation` are the device's contributions.
    pub(super) fn image(&self, device_status: u8, generation: u8) -> [u8; COMMON_LEN] {
        let mut image = [0; COMMON_LEN];
        for (at, len, field) in FIELDS {
            let value = match field {
                Field::Status => u64::from(self.status | device_status),
                Field::Generation => u64::from(generation),
                _ => self.get(field),
            };
            image[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        image
    }

    fn get(&self, field: Field) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of_queue = |get: fn(&QueueRegs) -> u64| queue.map_or(0, get);
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select.into(),
            Field::DeviceFeature => word(self.offered, self.device_feature_select),
            Field::DriverFeatureSelect => self.driver_feature_select.into(),
            Field::DriverFeature => word(self.accepted, self.driver_feature_select),
            Field::ConfigVector => self.config_interrupt.vector().into(),
            Field::NumQueues => self.queues.len() as u64,
            Field::QueueSelect => self.queue_select.into(),
            Field::QueueSize => of_queue(|queue| queue.size.into()),
            Field::QueueVector => queue.map_or(NO_VECTOR, |queue| queue.interrupt.vector()).into(),
            Field::QueueEnable => of_queue(|queue| queue.enabled.into()),
            Field::QueueReset => of_queue(|queue| queue.resetting.into()),
            // The register of queue n is number n.
            Field::QueueNotifyOff => queue.map_or(0, |_| self.queue_select.into()),
            Field::QueueDesc => of_queue(|queue| queue.desc),
            Field::QueueDriver => of_queue(|queue| queue.driver),
            Field::QueueDevice => of_queue(|queue| queue.device),
            Field::Status | Field::Generation | Field::NotOffered => 0,
        }
    }

    /// A driver's store. Offsets beyond the structure are dropped.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut effect = Effect::default();
        let Ok(start) = usize::try_from(offset) else { return effect };
        let end = start.saturating_add(data.len()).min(COMMON_LEN);
        for (at, len, field) in FIELDS {
            let (from, to) = (start.max(at), end.min(at + len));
            if from >= to {
                continue;
            }
            let old = if field == Field::Status { self.status.into() } else { self.get(field) };
            let mut bytes = old.to_le_bytes();
            bytes[from - at..to - at].copy_from_slice(&data[from - start..to - start]);
            self.set(field, u64::from_le_bytes(bytes), &mut effect);
        }
        effect
    }

    fn set(&mut self, field: Field, value: u64, effect: &mut Effect) {
        let ring_reset = self.features() >> VIRTIO_F_RING_RESET & 1 != 0;
        let queue = self.queues.get_mut(usize::from(self.queue_select));
        // A driver must not change an enabled queue (4.1.4.3.2); such a write is ignored.
        let idle = queue.filter(|queue| !queue.enabled);
        match (field, idle) {
            (Field::DeviceFeatureSelect, _) => self.device_feature_select = value as u32,
            (Field::DriverFeatureSelect, _) => self.driver_feature_select = value as u32,
            (Field::DriverFeature, _) => self.accept(value as u32),
            (Field::ConfigVector, _) => _ = self.config_interrupt.set_vector(value as u16),
            (Field::Status, _) => self.set_status(value as u8, effect),
            (Field::QueueSelect, _) => self.queue_select = value as u16,
            (Field::QueueVector, _) => {
                if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
                    queue.interrupt.set_vector(value as u16);
                    effect.vector = true;
                }
            }
            (Field::QueueSize, Some(queue)) => queue.size = value as u16,
            (Field::QueueDesc, Some(queue)) => queue.desc = value,
            (Field::QueueDriver, Some(queue)) => queue.driver = value,
            (Field::QueueDevice, Some(queue)) => queue.device = value,
            (Field::QueueEnable, Some(queue)) if value == 1 => {
                queue.enabled = true;
                effect.changed = true;
            }
            // Reads 1 until the queue has completed what is in flight (4.1.4.3.1).
            (Field::QueueReset, _) if value == 1 && ring_reset => {
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.resetting = true;
                    effect.changed = true;
                }
            }
            _ => {}
        }
    }

    fn accept(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 || self.driver_feature_select > 1 {
            return;
        }
        let shift = 32 * self.driver_feature_select;
        self.accepted = self.accepted & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
    }

    /// Bits are only added; 0 requests a reset. FEATURES_OK stays off, which the driver must check, if it accepted
    /// a feature that was not offered, or not VERSION_1 (virtio 1.2, 2.2.2 and 6.2); DRIVER_OK stays off without FEATURES_OK.
    fn set_status(&mut self, value: u8, effect: &mut Effect) {
        if value == 0 {
            effect.reset = true;
            return;
        }
        let mut added = value & DRIVER_BITS & !self.status;
        let acceptable = self.accepted & !self.offered == 0 && self.accepted >> VIRTIO_F_VERSION_1 & 1 != 0;
        if added & FEATURES_OK != 0 && !acceptable {
            added &= !FEATURES_OK;
        }
        if (self.status | added) & FEATURES_OK == 0 {
            added &= !DRIVER_OK;
        }
        self.status |= added;
        effect.negotiated |= added & FEATURES_OK != 0;
        effect.changed |= added != 0;
    }
}

/// The 32 bits of `features` that `select` selects: 0 beyond the second word.
fn word(features: u64, select: u32) -> u64 {
    features.checked_shr(select.saturating_mul(32)).unwrap_or(0) & u64::from(u32::MAX)
}

#[cfg(test)]
#[path = "common_tests.rs"]
mod tests;
