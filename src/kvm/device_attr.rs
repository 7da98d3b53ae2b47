use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{KVMIO, kvm_device_attr};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

// kvm-ioctls has it for devices, and for vCPUs only on arm64.
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// `KVM_SET_DEVICE_ATTR` on a device of KVM's or a vCPU (KVM API, 4.80): passes `value` to the kernel.
///
/// # Errors
/// KVM does not know the attribute, or refused the value.
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
