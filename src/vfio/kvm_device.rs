use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, KVMIO, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::kvm::Vm;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// KVM's VFIO device (Documentation/virt/kvm/devices/vfio.rst): tells KVM which groups or devices the guest has, so that
/// it knows whether their DMA is cache coherent, and lets drivers find the VM.
#[derive(Debug)]
pub struct KvmVfio(OwnedFd);

impl KvmVfio {
    /// Makes it. `None` if this KVM has none, which costs only what is said above.
    pub fn new(vm: &dyn Vm) -> Option<KvmVfio> {
        vm.create_device(kvm_device_type_KVM_DEV_TYPE_VFIO).ok().map(KvmVfio)
    }

    /// `KVM_DEV_VFIO_FILE_ADD` (`..GROUP_ADD` on older kernels, the same number) of a group or a device. KVM lets go when
    /// this value is dropped.
    pub fn add(&mut self, file: BorrowedFd<'_>) {
        let fd = file.as_raw_fd();
        let attr = kvm_device_attr {
            flags: 0,
            group: KVM_DEV_VFIO_GROUP,
            attr: KVM_DEV_VFIO_GROUP_ADD.into(),
            addr: (&raw const fd) as u64,
        };
        // SAFETY: the attribute's data is a descriptor, alive over the call, which only reads.
        let ret = unsafe { ioctl_with_ref(&self.0, KVM_SET_DEVICE_ATTR(), &attr) };
        if ret < 0 {
            let error = std::io::Error::last_os_error();
            eprintln!("doorbell: KVM did not take note of a VFIO device: {error}");
        }
    }
}
