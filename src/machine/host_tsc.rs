use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

// kvm-ioctls offers the vCPU's attributes on arm64 only.
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// Takes the offset off the guest's time-stamp counter, so that stamps of guest and host can be compared
/// (Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET; Linux 5.16). Whoever compares asks first whether it
/// worked: a KVM that does not know the attribute keeps its offset, and the guest runs all the same.
pub fn use_host_tsc(vcpu: &VcpuFd) {
    let offset = 0u64;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: &raw const offset as u64,
        ..Default::default()
    };
    // SAFETY: KVM reads one u64 at `addr`, which lives until the call is over.
    let _ = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attr) };
}
