"""KVM_INTERRUPT on two bare VMs, one without and one with KVM's interrupt controllers. For docs/dataplane.md, station 9."""

import errno
import fcntl
import os
import struct

KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_IRQCHIP, KVM_INTERRUPT = 0xAE01, 0xAE41, 0xAE60, 0x4004AE86

for irqchip in (False, True):
    vm = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), KVM_CREATE_VM, 0)
    if irqchip:
        fcntl.ioctl(vm, KVM_CREATE_IRQCHIP, 0)
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    try:
        fcntl.ioctl(vcpu, KVM_INTERRUPT, struct.pack("I", 0x40))
        result = "queued for the vCPU's next KVM_RUN"
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(f"{'with' if irqchip else 'without'} KVM_CREATE_IRQCHIP: KVM_INTERRUPT(0x40): {result}")
