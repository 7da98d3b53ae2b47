//! What is counted: kernel functions and tracepoints that tell which path a kick and a completion took.

use std::path::Path;

/// The names, the vendors' own last and together. A name is a kernel function (`irqfd_wakeup`), a tracepoint with its group
/// (`kvm:kvm_exit`), or a function with the value that its second argument must have (`flat_send_IPI_mask(0xf2)`).
pub const EVIDENCE: &[&str] = &[
    "ioeventfd_write",
    "irqfd_wakeup",
    "irqfd_inject",
    "irqfd_resampler_ack",
    "kvm_arch_set_irq_inatomic",
    "kvm_send_userspace_msi",
    "kvm_set_msi",
    "kvm_vm_ioctl_irq_line",
    "kvm_set_irq_routing",
    "kvm_vcpu_kick",
    "x86_emulate_instruction",
    "irq_bypass_register_producer",
    "irq_bypass_register_consumer",
    "irq_bypass_unregister_producer",
    "irq_bypass_unregister_consumer",
    "vfio_msihandler",
    "vfio_intx_handler",
    "kvm:kvm_fast_mmio",
    "kvm:kvm_mmio",
    "kvm:kvm_pio",
    "kvm:kvm_exit",
    "kvm:kvm_userspace_exit",
    "kvm:kvm_msi_set_irq",
    "kvm:kvm_set_irq",
    "kvm:kvm_apicv_accept_irq",
    "kvm:kvm_pi_irte_update",
    // Intel: a kick, a delivery, a posted one and its notification (POSTED_INTR_VECTOR, arch/x86/include/asm/irq_vectors.h:
    // which function sends it depends on the host's APIC), an EOI that KVM must hear of, a device's posting.
    "handle_ept_violation",
    "handle_ept_misconfig",
    "vmx_deliver_interrupt",
    "vmx_sync_pir_to_irr",
    "flat_send_IPI_mask(0xf2)",
    "default_send_IPI_mask_sequence_phys(0xf2)",
    "x2apic_send_IPI_mask(0xf2)",
    "handle_apic_eoi_induced",
    "vmx_pi_update_irte",
    // AMD: the same, except that a notification is a write to an MSR (avic_ring_doorbell).
    "npf_interception",
    "svm_deliver_interrupt",
    "svm_complete_interrupt_delivery",
    "avic_ring_doorbell",
    "avic_pi_update_irte",
    "svm_pi_update_irte",
];

/// The functions whose callers are worth seeing: the kick's end, the two ways of interrupting the guest, and where they end
/// on Intel and on AMD.
pub const STACKS: &[&str] = &[
    "ioeventfd_write",
    "irqfd_wakeup",
    "kvm_send_userspace_msi",
    "vmx_deliver_interrupt",
    "svm_deliver_interrupt",
];

/// Whose KVM a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// kvm_intel.
    Intel,
    /// kvm_amd.
    Amd,
}

impl Vendor {
    /// Both, in the order of display.
    pub const ALL: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];

    /// The vendor of `name`; `None`: it is KVM's own, or the kernel's.
    pub fn of(name: &str) -> Option<Vendor> {
        let starts = |all: &[&str]| all.iter().any(|start| name.starts_with(start));
        if starts(&["vmx_", "handle_ept_", "handle_apic_"]) || name.ends_with("(0xf2)") {
            return Some(Vendor::Intel);
        }
        starts(&["svm_", "avic_", "npf_"]).then_some(Vendor::Amd)
    }

    /// "Intel", "AMD".
    pub fn name(self) -> &'static str {
        match self {
            Vendor::Intel => "Intel",
            Vendor::Amd => "AMD",
        }
    }

    /// Its module of KVM.
    pub fn module(self) -> &'static str {
        match self {
            Vendor::Intel => "kvm_intel",
            Vendor::Amd => "kvm_amd",
        }
    }

    /// Whether that module is loaded, or built in.
    pub fn is_loaded(self) -> bool {
        Path::new("/sys/module").join(self.module()).exists()
    }
}

/// A name taken apart: `flat_send_IPI_mask(0xf2)` is the function, and the value of its second argument.
pub(super) fn parse(name: &str) -> (&str, Option<u32>) {
    let split = || {
        let (function, value) = name.strip_suffix(')')?.split_once('(')?;
        Some((function, u32::from_str_radix(value.strip_prefix("0x")?, 16).ok()?))
    };
    split().map_or((name, None), |(function, value)| (function, Some(value)))
}
