use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use kvm_bindings::{
    KVMIO, KvmIrqRouting, kvm_create_device, kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch,
    kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio, kvm_irq_routing_entry, kvm_irqfd, kvm_msi,
    kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use tracing::info;

use super::{IoAddress, IoeventfdSpec, Match, MemoryRange, MsiMessage};
use crate::host::events::hex;

ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
ioctl_iow_nr!(KVM_IRQFD, KVMIO, 0x76, kvm_irqfd);

const KVM_IRQFD_FLAG_DEASSIGN: u32 = 1 << 0;
const KVM_IRQFD_FLAG_RESAMPLE: u32 = 1 << 1;

/// The VM-wide ioctls that the dataplane uses. [`KvmVm`] implements them, and `testing::FakeVm` for tests.
pub trait VmIoctls: Send + Sync + fmt::Debug {
    /// `KVM_IOEVENTFD` (KVM API 4.59): binds `fd` to a guest store, or unbinds it.
    fn ioeventfd(&self, spec: &IoeventfdSpec, fd: RawFd, assign: bool) -> io::Result<()>;
    /// `KVM_IRQFD` (KVM API 4.75): binds `fd` to a GSI, or unbinds it. With `resample` the interrupt is level
    /// triggered, and KVM signals that second eventfd at EOI.
    fn irqfd(&self, gsi: u32, fd: RawFd, resample: Option<RawFd>, assign: bool) -> io::Result<()>;
    /// `KVM_SET_GSI_ROUTING` (KVM API 4.52): replaces the whole routing table.
    fn set_gsi_routing(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()>;
    /// `KVM_SIGNAL_MSI` (KVM API 4.70): sends one message. Returns `false` if no CPU took it: the guest blocks it, or
    /// the destination does not exist.
    fn signal_msi(&self, message: MsiMessage) -> io::Result<bool>;
    /// `KVM_IRQ_LINE` (KVM API 4.25): sets the level of a GSI.
    fn irq_line(&self, gsi: u32, active: bool) -> io::Result<()>;
    /// `KVM_SET_USER_MEMORY_REGION` (KVM API 4.35): makes `range` slot `number`. Length 0 removes the slot.
    ///
    /// # Safety
    /// The host range stays mapped until the slot is removed, and no Rust reference to it is held.
    unsafe fn set_memory_slot(&self, number: u32, range: MemoryRange) -> io::Result<()>;
    /// `KVM_CREATE_DEVICE` (KVM API 4.79): creates a device of type `kind`, a `KVM_DEV_TYPE_*`.
    fn create_device(&self, kind: u32) -> io::Result<OwnedFd>;
}

/// The implementation: ioctls on a VM file descriptor.
#[derive(Clone)]
pub struct KvmVm(Arc<VmFd>);

impl KvmVm {
    /// Wraps the VM file descriptor `vm`.
    pub fn new(vm: Arc<VmFd>) -> KvmVm {
        KvmVm(vm)
    }
}

impl fmt::Debug for KvmVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvmVm(fd {})", self.0.as_raw_fd())
    }
}

fn check(ret: i32) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl VmIoctls for KvmVm {
    // kvm-ioctls derives the length from a Rust type, which cannot express "length 2, any value".
    fn ioeventfd(&self, spec: &IoeventfdSpec, fd: RawFd, assign: bool) -> io::Result<()> {
        let mut flags = 0;
        let (mut len, mut datamatch) = (0, 0);
        match spec.matching {
            Match::Any => {}
            Match::Length(n) => len = u32::from(n),
            Match::Value(n, value) => {
                (len, datamatch) = (u32::from(n), value);
                flags |= 1 << kvm_ioeventfd_flag_nr_datamatch;
            }
        }
        let addr = match spec.address {
            IoAddress::Mmio(addr) => addr,
            IoAddress::Pio(port) => {
                flags |= 1 << kvm_ioeventfd_flag_nr_pio;
                u64::from(port)
            }
        };
        if !assign {
            flags |= 1 << kvm_ioeventfd_flag_nr_deassign;
        }
        let arg = kvm_ioeventfd { datamatch, addr, len, fd, flags, ..Default::default() };
        // SAFETY: the VM fd is open for as long as self, and `arg` outlives the call, which only reads it.
        check(unsafe { ioctl_with_ref(&*self.0, KVM_IOEVENTFD(), &arg) })?;
        let pio = matches!(spec.address, IoAddress::Pio(_));
        info!(target: "kvm", assign, pio, address = hex(addr), matching = ?spec.matching, "KVM_IOEVENTFD");
        Ok(())
    }

    fn irqfd(&self, gsi: u32, fd: RawFd, resample: Option<RawFd>, assign: bool) -> io::Result<()> {
        let mut arg = kvm_irqfd { fd: fd as u32, gsi, ..Default::default() };
        if let Some(resample) = resample {
            arg.flags |= KVM_IRQFD_FLAG_RESAMPLE;
            arg.resamplefd = resample as u32;
        }
        if !assign {
            arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
        }
        // SAFETY: as in `ioeventfd`.
        check(unsafe { ioctl_with_ref(&*self.0, KVM_IRQFD(), &arg) })?;
        info!(target: "kvm", assign, gsi, level = resample.is_some(), "KVM_IRQFD");
        Ok(())
    }

    fn set_gsi_routing(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()> {
        let table =
            KvmIrqRouting::from_entries(entries).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        self.0.set_gsi_routing(&table)?;
        info!(target: "kvm", entries = entries.len(), "KVM_SET_GSI_ROUTING");
        Ok(())
    }

    fn signal_msi(&self, message: MsiMessage) -> io::Result<bool> {
        let msi = kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        Ok(self.0.signal_msi(msi)? > 0)
    }

    fn irq_line(&self, gsi: u32, active: bool) -> io::Result<()> {
        Ok(self.0.set_irq_line(gsi, active)?)
    }

    unsafe fn set_memory_slot(&self, number: u32, range: MemoryRange) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: range.guest,
            memory_size: range.len,
            userspace_addr: range.host,
        };
        // SAFETY: the caller's promise.
        Ok(unsafe { self.0.set_user_memory_region(region) }?)
    }

    fn create_device(&self, kind: u32) -> io::Result<OwnedFd> {
        let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
        let fd = self.0.create_device(&mut device)?;
        // SAFETY: the descriptor is alive for as long as `fd`; the copy is its own.
        unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }.try_clone_to_owned()
    }
}
