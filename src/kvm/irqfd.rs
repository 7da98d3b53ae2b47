use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{Gsi, KvmError, VmIoctls};

/// An eventfd bound to a GSI. Dropping it unbinds.
///
/// If the eventfd's counter is above 0 when it is bound, KVM delivers an interrupt at once (`kvm_irqfd_assign` polls
/// it). This is why the counter can serve as the pending bit of a masked vector.
#[derive(Debug)]
pub struct Irqfd {
    vm: Arc<dyn VmIoctls>,
    gsi: Gsi,
    event: Arc<EventFd>,
}

impl Irqfd {
    /// Binds `event` to `gsi`, edge triggered.
    ///
    /// # Errors
    /// EBUSY if the eventfd is bound already.
    pub fn new(vm: Arc<dyn VmIoctls>, gsi: Gsi, event: Arc<EventFd>) -> Result<Irqfd, KvmError> {
        Irqfd::assign(vm, gsi, event, None)
    }

    /// Binds `event` to `gsi`, level triggered: at the guest's EOI, KVM lowers the pin and signals `resample`
    /// (`irqfd_resampler_ack`).
    ///
    /// # Errors
    /// EBUSY if the eventfd is bound already.
    pub fn with_resample(
        vm: Arc<dyn VmIoctls>,
        gsi: Gsi,
        event: Arc<EventFd>,
        resample: &EventFd,
    ) -> Result<Irqfd, KvmError> {
        Irqfd::assign(vm, gsi, event, Some(resample))
    }

    fn assign(
        vm: Arc<dyn VmIoctls>,
        gsi: Gsi,
        event: Arc<EventFd>,
        resample: Option<&EventFd>,
    ) -> Result<Irqfd, KvmError> {
        vm.irqfd(gsi, event.as_raw_fd(), resample.map(AsRawFd::as_raw_fd), true)
            .map_err(|source| KvmError::Ioctl { ioctl: "KVM_IRQFD", what: format!("GSI {gsi}"), source })?;
        Ok(Irqfd { vm, gsi, event })
    }

    /// Returns the GSI that the eventfd is bound to.
    pub fn gsi(&self) -> Gsi {
        self.gsi
    }
}

impl Drop for Irqfd {
    fn drop(&mut self) {
        let _ = self.vm.irqfd(self.gsi, self.event.as_raw_fd(), None, false);
    }
}
