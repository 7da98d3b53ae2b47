//! Opens /dev/kvm and creates an empty VM.

use kvm_bindings::{KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip};
use kvm_ioctls::{Kvm, VmFd};

use super::error::MachineError;

/// Opens /dev/kvm.
///
/// # Errors
/// /dev/kvm does not exist or cannot be opened: one sentence with what to do.
pub fn open_kvm() -> Result<Kvm, MachineError> {
    Kvm::new().map_err(|e| {
        MachineError::Host(match e.errno() {
            libc::ENOENT => {
                "no /dev/kvm here: switch virtualization on in the firmware and load kvm_intel or \
                             kvm_amd; `doorbell check` tells more"
                    .into()
            }
            libc::EACCES | libc::EPERM => {
                "no permission to open /dev/kvm: add yourself to its group (kvm), or use sudo".into()
            }
            _ => format!("/dev/kvm cannot be opened: {e}"),
        })
    })
}

/// Masks all pins of the in-kernel PIC. KVM routes GSIs 0 to 15 to it as well as to the IOAPIC. The guest does not mask
/// it, because ACPI reports that there is none.
pub(super) fn mask_pic(vm: &VmFd) -> Result<(), MachineError> {
    for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE] {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        vm.get_irqchip(&mut chip).map_err(|e| MachineError::kvm("KVM_GET_IRQCHIP", e))?;
        chip.chip.pic.imr = 0xff;
        vm.set_irqchip(&chip).map_err(|e| MachineError::kvm("KVM_SET_IRQCHIP", e))?;
    }
    Ok(())
}

/// Creates a VM (`KVM_CREATE_VM`), and repeats the call as long as it returns EINTR. The kernel returns it if anything
/// is pending for the thread, including an io_uring's task work, while it locks all mappings (`mm_take_all_locks`).
pub(crate) fn create_vm(kvm: &Kvm) -> Result<VmFd, kvm_ioctls::Error> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}
