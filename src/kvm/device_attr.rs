use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{KVMIO, kvm_device_attr};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

// kvm-ioctls offers this ioctl for devices, but for vCPUs only on arm64.
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// Sets attribute `attr` of `group` to `value`, on a KVM device or a vCPU: `KVM_SET_DEVICE_ATTR` (KVM API 4.80).
///
/// # Errors
/// KVM does not know the attribute (ENXIO), or refused the value (EINVAL).
///
/// # Safety
/// KVM reads at most a `T` for this attribute.
pub unsafe fn set_device_attr<T>(on: &impl AsRawFd, group: u32, attr: u64, value: &T) -> io::Result<()> {
    let attr = kvm_device_attr { flags: 0, group, attr, addr: &raw const *value as u64 };
    // SAFETY: the value outlives the call, which only reads it, and no more than a `T` (the caller's promise).
    match unsafe { ioctl_with_ref(on, KVM_SET_DEVICE_ATTR(), &attr) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
