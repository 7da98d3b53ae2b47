use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use kvm_bindings::{KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, kvm_device_type_KVM_DEV_TYPE_VFIO};

use crate::host::log;
use crate::kvm::{VmIoctls, set_device_attr};

/// KVM's VFIO device (Documentation/virt/kvm/devices/vfio.rst): tells KVM the guest's groups or devices, so that it
/// knows whether their DMA is cache coherent, and lets drivers find the VM.
#[derive(Debug)]
pub struct KvmVfio(OwnedFd);

impl KvmVfio {
    /// Creates it. `None` if this KVM lacks it; everything else works without it.
    pub fn new(vm: &dyn VmIoctls) -> Option<KvmVfio> {
        vm.create_device(kvm_device_type_KVM_DEV_TYPE_VFIO).ok().map(KvmVfio)
    }

    /// `KVM_DEV_VFIO_FILE_ADD` (`..GROUP_ADD` on older kernels, the same number) of a group or a device. KVM releases it
    /// when this value is dropped.
    pub fn add(&mut self, file: BorrowedFd<'_>) {
        let fd = file.as_raw_fd();
        // SAFETY: the attribute's data is a descriptor, a signed 32-bit number.
        let added =
            unsafe { set_device_attr(&self.0, KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD.into(), &fd) };
        if let Err(error) = added {
            log::warn("vfio", format_args!("KVM could not register a VFIO device: {error}"));
        }
    }
}
