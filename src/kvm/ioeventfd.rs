use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{IoeventfdSpec, KvmError, VmIoctls};

/// A registered ioeventfd. Dropping it deregisters it with the same parameters, by which the kernel finds it.
#[derive(Debug)]
pub struct Ioeventfd {
    vm: Arc<dyn VmIoctls>,
    spec: IoeventfdSpec,
    event: Arc<EventFd>,
}

impl Ioeventfd {
    /// Registers `event` for the stores that `spec` describes.
    ///
    /// # Errors
    /// EEXIST: an ioeventfd with the same or an overlapping match exists (`ioeventfd_check_collision`). ENOSPC: the bus
    /// already holds `NR_IOBUS_DEVS` (1000) devices.
    pub fn new(
        vm: Arc<dyn VmIoctls>,
        spec: IoeventfdSpec,
        event: Arc<EventFd>,
    ) -> Result<Ioeventfd, KvmError> {
        vm.ioeventfd(&spec, event.as_raw_fd(), true).map_err(|source| KvmError::Ioctl {
            ioctl: "KVM_IOEVENTFD",
            what: format!("{spec:x?}"),
            source,
        })?;
        Ok(Ioeventfd { vm, spec, event })
    }

    /// Returns the parameters of the registration.
    pub fn spec(&self) -> IoeventfdSpec {
        self.spec
    }
}

impl Drop for Ioeventfd {
    fn drop(&mut self) {
        // This fails only if the VM is closed, and then the ioeventfd no longer exists either.
        let _ = self.vm.ioeventfd(&self.spec, self.event.as_raw_fd(), false);
    }
}
