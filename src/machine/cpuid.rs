//! CPUID: the leaves that KVM supports, with the vCPU's number and the topology filled in.
//!
//! The topology is one package, one thread per core, one L3 cache for all. The APIC ID is the vCPU's number.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::MachineError;
use super::cpuid_mask::{self, CpuModel};

/// Returns the leaves of `KVM_GET_SUPPORTED_CPUID`, with the TSC deadline timer added if the in-kernel local APIC has
/// it (`KVM_CAP_TSC_DEADLINE_TIMER`: KVM leaves that bit to the VMM).
///
/// # Errors
/// The ioctl failed.
pub fn supported(kvm: &Kvm) -> Result<CpuId, MachineError> {
    const TSC_DEADLINE: u32 = 1 << 24;
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|e| MachineError::kvm("KVM_GET_SUPPORTED_CPUID", e))?;
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for entry in cpuid.as_mut_slice().iter_mut().filter(|e| e.function == 1) {
            entry.ecx |= TSC_DEADLINE;
        }
    }
    Ok(cpuid)
}

/// Returns the CPUID of vCPU `index` of `count`, made from what of `supported` the `model` shows.
pub fn for_vcpu(
    supported: &[kvm_cpuid_entry2],
    index: u8,
    count: u8,
    model: CpuModel,
) -> Vec<kvm_cpuid_entry2> {
    let first = supported.iter().find(|e| e.function == 0);
    let max_leaf = first.map_or(0, |e| e.eax);
    let amd = first.is_some_and(|e| matches!(&e.ebx.to_le_bytes(), b"Auth" | b"Hygo"));
    // The extended topology leaves are replaced. AMD's leaf 0x8000_0026 has no further information, so it is
    // dropped.
    let kept = supported.iter().filter(|e| !matches!(e.function, 0xb | 0x1f | 0x8000_0026));
    let mut entries: Vec<_> = kept.copied().collect();
    cpuid_mask::apply(&mut entries, model);
    for entry in &mut entries {
        patch(entry, index.into(), count.into(), amd);
    }
    for function in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= max_leaf) {
        entries.extend(topology(function, index.into(), count.into()));
    }
    entries
}

/// Returns how many bits of an APIC ID `count` CPUs need.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn patch(entry: &mut kvm_cpuid_entry2, index: u32, count: u32, amd: bool) {
    const HYPERVISOR: u32 = 1 << 31;
    const HTT: u32 = 1 << 28;
    const CMP_LEGACY: u32 = 1 << 1;
    let set = |word: &mut u32, bit: u32, on: bool| if on { *word |= bit } else { *word &= !bit };
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | index << 24;
            entry.ecx |= HYPERVISOR;
            set(&mut entry.edx, HTT, count > 1);
        }
        // Caches (Intel 4, AMD 0x8000_001D): all but level 3 are private to a core. EAX 25:14 is the number of CPUs
        // that share the cache, minus 1.
        4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharers = if level >= 3 { count.next_power_of_two() } else { 1 };
            entry.eax = entry.eax & 0x3fff | (sharers - 1) << 14;
            if entry.function == 4 {
                entry.eax |= (count.next_power_of_two() - 1) << 26;
            }
        }
        0x8000_0001 if amd => set(&mut entry.ecx, CMP_LEGACY, count > 1),
        // ECX 15:12 is the number of bits of the APIC ID, 7:0 the number of cores minus 1.
        0x8000_0008 if amd => entry.ecx = entry.ecx & !0xf0ff | id_bits(count) << 12 | (count - 1),
        // The extended APIC ID; one thread per core; one node.
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Returns the sub-leaves of an extended topology leaf: a thread level of 1, a core level of `count`, and the end.
fn topology(function: u32, index: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |number, shift, threads, kind: u32| kvm_cpuid_entry2 {
        function,
        index: number,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: threads,
        ecx: kind << 8 | number,
        edx: index,
        ..Default::default()
    };
    [level(0, 0, 1, 1), level(1, id_bits(count), count, 2), level(2, 0, 0, 0)]
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
