use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{IoeventfdSpec, KvmError, VmIoctls};

/// A registered ioeventfd; dropping it deregisters with the parameters it was made with.
#[derive(Debug)]
pub struct Ioeventfd {
    vm: Arc<dyn VmIoctls>,
    spec: IoeventfdSpec,
    event: Arc<EventFd>,
}

impl Ioeventfd {
    /// Registers `event` for `spec`.
    ///
    /// # Errors
    /// The kernel refuses a second registration of the same length-0 address (EEXIST) and has an upper limit
    /// (`NR_IOBUS_DEVS`, 1000 per bus: ENOSPC).
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

    /// The parameters it was made with.
    pub fn spec(&self) -> IoeventfdSpec {
        self.spec
    }
}

impl Drop for Ioeventfd {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and none is possible but a closed VM.
        let _ = self.vm.ioeventfd(&self.spec, self.event.as_raw_fd(), false);
    }
}
