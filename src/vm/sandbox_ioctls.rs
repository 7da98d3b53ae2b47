//! ioctls by request number, as <linux/kvm.h>, <linux/vfio.h>, <linux/iommufd.h>, <linux/fs.h> and <asm-generic/ioctls.h> make
//! them.

use kvm_bindings::{
    KVMIO, kvm_ioeventfd, kvm_irq_level, kvm_irq_routing, kvm_irqchip, kvm_irqfd, kvm_msi, kvm_regs,
    kvm_userspace_memory_region,
};

const NONE: u64 = 0;
const WRITE: u64 = 1;
const READ: u64 = 2;

/// `_IOC` of <asm-generic/ioctl.h>.
const fn ioc(direction: u64, kind: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | kind << 8 | number
}

const fn kvm(direction: u64, number: u64, size: usize) -> u64 {
    ioc(direction, KVMIO as u64, number, size)
}

/// `_IO(VFIO_TYPE, n)`: VFIO and iommufd have no sizes in their numbers.
const fn vfio(number: u64) -> u64 {
    ioc(NONE, b';' as u64, number, 0)
}

const SIGNAL_MSI: u64 = kvm(WRITE, 0xa5, size_of::<kvm_msi>());
const IRQ_LINE: u64 = kvm(WRITE, 0x61, size_of::<kvm_irq_level>());
const IRQ_LINE_STATUS: u64 = kvm(READ | WRITE, 0x67, size_of::<kvm_irq_level>());
const IRQFD: u64 = kvm(WRITE, 0x76, size_of::<kvm_irqfd>());

/// Of a vCPU's own thread: KVM_RUN, and KVM_GET_REGS to say where a guest stopped.
pub(super) const VCPU: [u64; 2] = [kvm(NONE, 0x80, 0), kvm(READ, 0x81, size_of::<kvm_regs>())];

/// Interrupting the guest.
pub(super) const INTERRUPTS: [u64; 4] = [SIGNAL_MSI, IRQ_LINE, IRQ_LINE_STATUS, IRQFD];

/// What a guest's store to a device's register may lead to.
pub(super) const DEVICE_REGISTERS: [u64; 18] = [
    SIGNAL_MSI,
    IRQ_LINE,
    IRQ_LINE_STATUS,
    IRQFD,
    kvm(WRITE, 0x79, size_of::<kvm_ioeventfd>()),
    // KVM_SET_GSI_ROUTING
    kvm(WRITE, 0x6a, size_of::<kvm_irq_routing>()),
    // KVM_SET_USER_MEMORY_REGION: BARs of passed-through devices
    kvm(WRITE, 0x46, size_of::<kvm_userspace_memory_region>()),
    // KVM_GET_IRQCHIP: the IOAPIC, for `inspect`
    kvm(READ | WRITE, 0x62, size_of::<kvm_irqchip>()),
    // VFIO_DEVICE_GET_REGION_INFO, _GET_IRQ_INFO, _SET_IRQS, _RESET
    vfio(108),
    vfio(109),
    vfio(110),
    vfio(111),
    // VFIO_IOMMU_MAP_DMA, _UNMAP_DMA
    vfio(113),
    vfio(114),
    // IOMMU_IOAS_MAP, _COPY, _UNMAP, IOMMU_DESTROY
    vfio(0x85),
    vfio(0x83),
    vfio(0x86),
    vfio(0x80),
];

/// BLKDISCARD.
pub(super) const DISK: [u64; 1] = [0x1277];

/// TCGETS, TCSETS, TCSETSW, TIOCGPGRP: the terminal's mode, also at the end of a process that a filter ends.
pub(super) const TERMINAL: [u64; 4] = [0x5401, 0x5402, 0x5403, 0x540f];
