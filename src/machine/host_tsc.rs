use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET};
use kvm_ioctls::VcpuFd;

use crate::kvm::set_device_attr;

/// Sets the offset of the guest's time-stamp counter to 0, so that timestamps of guest and host can be compared
/// (Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET; Linux 5.16). A KVM that does not know the attribute
/// keeps its offset, and the guest runs all the same. So check that it worked before you compare.
pub fn use_host_tsc(vcpu: &VcpuFd) {
    // SAFETY: the offset is a u64.
    let _ = unsafe { set_device_attr(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET.into(), &0u64) };
}
