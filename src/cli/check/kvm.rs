//! Checks of KVM.

use kvm_bindings::KVM_CAP_BINARY_STATS_FD;
use kvm_ioctls::{Cap, Kvm};

use super::Item;
use super::host::{has_cpu_flag, read, release};
use crate::host::HostFacts;
use crate::machine::{Kernel, Machine, MachineConfig, layout, open_kvm};

const API: i32 = 12;
const OLD: &str = "use a newer kernel";

/// The capabilities that `run` needs, each with its purpose.
const NEEDED: [(&str, Cap, &str); 10] = [
    ("KVM_CAP_USER_MEMORY", Cap::UserMemory, "guest RAM"),
    ("KVM_CAP_IRQCHIP", Cap::Irqchip, "local APICs and IOAPIC in the kernel"),
    ("KVM_CAP_EXT_CPUID", Cap::ExtCpuid, "CPUID for the guest"),
    ("KVM_CAP_SET_TSS_ADDR", Cap::SetTssAddr, "a page that VT-x needs"),
    ("KVM_CAP_IMMEDIATE_EXIT", Cap::ImmediateExit, "stopping a vCPU"),
    ("KVM_CAP_TSC_DEADLINE_TIMER", Cap::TscDeadlineTimer, "the guest's timer"),
    ("KVM_CAP_IOEVENTFD", Cap::Ioeventfd, "kicks without an exit to user space"),
    ("KVM_CAP_IRQFD", Cap::Irqfd, "completions by eventfd"),
    ("KVM_CAP_IRQ_ROUTING", Cap::IrqRouting, "MSI routes for irqfds"),
    ("KVM_CAP_SIGNAL_MSI", Cap::SignalMsi, "completions by ioctl"),
];

pub(super) fn items() -> Vec<Item> {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => return vec![Item::new("/dev/kvm", true, false, error.to_string()), hardware()],
    };
    let version = kvm.get_api_version();
    let mut items = vec![
        Item::new("/dev/kvm", true, true, "can be opened"),
        Item::new("KVM API", true, version == API, format!("version {version}, {API} is needed")).or(OLD),
        hardware(),
        machine(),
    ];
    items.extend(
        NEEDED.map(|(name, cap, what)| Item::new(name, true, kvm.check_extension(cap), what).or(OLD)),
    );
    items.extend([
        vcpus(&kvm),
        any_length(&kvm),
        fast_mmio(&kvm),
        Item::new(
            "KVM_CAP_IRQFD_RESAMPLE",
            false,
            kvm.check_extension(Cap::IrqfdResample),
            "complete=resample, INTx of passed-through devices",
        )
        .or(OLD),
        Item::new(
            "KVM_CAP_BINARY_STATS_FD",
            false,
            kvm.check_extension_raw(KVM_CAP_BINARY_STATS_FD.into()) > 0,
            "KVM's own counts in reports",
        )
        .or("Linux 5.14 has it"),
    ]);
    items
}

/// Whether KVM uses hardware virtualization.
fn hardware() -> Item {
    const NAME: &str = "hardware virtualization";
    let module = HostFacts::here().kvm_module;
    let (feature, flag) = match module.as_deref() {
        Some("kvm_intel") => ("VT-x", has_cpu_flag("vmx")),
        Some("kvm_amd") => ("AMD-V", has_cpu_flag("svm")),
        Some(other) => {
            let found = format!("{other} is a KVM in software: it runs the probe, but no stock Linux kernel");
            return Item::new(NAME, true, false, found)
                .or("use a host whose CPU flags have vmx or svm, or the lab (scripts/lab)");
        }
        None if has_cpu_flag("vmx") => ("VT-x", true),
        None if has_cpu_flag("svm") => ("AMD-V", true),
        None => {
            return Item::new(NAME, true, false, "the CPU shows neither vmx nor svm").or(
                "switch it on in the firmware, or nested virtualization on if this is a virtual machine",
            );
        }
    };
    let emulated = if HostFacts::here().lab { ", emulated: this is the lab" } else { "" };
    Item::new(NAME, true, flag, format!("{feature}{emulated}")).or("switch it on in the firmware")
}

/// Makes the smallest machine, as `run` would, and drops it.
fn machine() -> Item {
    match Machine::new(MachineConfig::new(Kernel::Image(Default::default()))) {
        Ok(_) => Item::new("virtual machine", true, true, "can be made"),
        Err(error) => Item::new("virtual machine", true, false, error.to_string()),
    }
}

fn vcpus(kvm: &Kvm) -> Item {
    let (limit, advised) = (kvm.get_max_vcpus(), kvm.get_nr_vcpus());
    let most = usize::from(layout::VCPUS_MAX);
    Item::new("vCPUs", false, limit >= most, format!("up to {limit} ({advised} advised), {most} can be used"))
}

fn any_length(kvm: &Kvm) -> Item {
    let present = kvm.check_extension(Cap::IoeventfdNoLength);
    Item::new(
        "KVM_CAP_IOEVENTFD_ANY_LENGTH",
        false,
        present,
        "notify=fast-mmio and pio: ioeventfds of length 0",
    )
    .or("Linux 4.4 has it; use notify=mmio")
}

/// Whether an ioeventfd of length 0 is also faster here. It is only if KVM knows from the fault alone that a store goes
/// to MMIO (a misconfigured EPT entry, or a reserved bit in a nested page table entry) and need not decode it.
fn fast_mmio(kvm: &Kvm) -> Item {
    const NAME: &str = "fast MMIO";
    let on = |path: &str| matches!(read(path).as_deref(), Some("Y" | "1"));
    let caching = read("/sys/module/kvm/parameters/mmio_caching").is_none_or(|v| v == "Y");
    let any_length = kvm.check_extension(Cap::IoeventfdNoLength);
    let absent = |found: &str| Item::new(NAME, false, false, found);
    match HostFacts::here().kvm_module.as_deref() {
        _ if !any_length => absent("no ioeventfd of length 0 here"),
        Some("kvm_intel" | "kvm_amd") if !caching => {
            absent("off: kvm.mmio_caching=N").or("load kvm with mmio_caching=Y")
        }
        Some("kvm_intel") if on("/sys/module/kvm_intel/parameters/ept") => {
            Item::new(NAME, false, true, "EPT misconfigurations are looked up without decoding")
        }
        Some("kvm_intel") => absent("EPT is off").or("load kvm_intel with ept=1"),
        // "KVM: SVM: Add support for expedited writes to the fast MMIO bus", November 2025.
        Some("kvm_amd") if release() < (6, 19) => {
            absent("kvm_amd decodes every store; length 0 works and is not faster").or("Linux 6.19 has it")
        }
        Some("kvm_amd") if !on("/sys/module/kvm_amd/parameters/npt") => {
            absent("nested paging is off").or("load kvm_amd with npt=1")
        }
        Some("kvm_amd") if !on("/sys/module/kvm_amd/parameters/nrips") || !has_cpu_flag("nrip_save") => {
            absent("this CPU does not report the next instruction (nrip_save)")
        }
        Some("kvm_amd") => Item::new(NAME, false, true, "reserved-bit faults are looked up without decoding"),
        _ => absent("this KVM decodes every store; length 0 works and is not faster"),
    }
}
