use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;

use crate::dataplane::Interrupt;

/// What an I/O thread may report to the device at any moment. It takes no lock of the device, so that a vCPU may wait for
/// the I/O thread while the I/O thread reports.
#[derive(Debug)]
pub(super) struct DeviceStatus {
    needs_reset: AtomicBool,
    generation: AtomicU8,
    config_interrupt: Interrupt,
}

impl DeviceStatus {
    pub(super) fn new(config_interrupt: Interrupt) -> DeviceStatus {
        DeviceStatus { needs_reset: AtomicBool::new(false), generation: AtomicU8::new(0), config_interrupt }
    }

    /// The driver broke the rules: DEVICE_NEEDS_RESET and one configuration interrupt (virtio 1.2, 2.1.2). Called
    /// only with DRIVER_OK set: queues do not run before.
    pub(super) fn fail(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.config_interrupt.deliver();
        }
    }

    /// A reset is done.
    pub(super) fn recover(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }

    /// The status bits that the device adds to the driver's.
    pub(super) fn status(&self) -> u8 {
        if self.needs_reset.load(Ordering::Acquire) { VIRTIO_CONFIG_S_NEEDS_RESET as u8 } else { 0 }
    }

    /// The device configuration changed: a driver that reads it in parts must read it again.
    pub(super) fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }
}
