//! CPUID without what a guest with disks does not need: each feature that is left out is code of KVM's that the guest cannot
//! reach, or state that nobody has to keep.

use kvm_bindings::kvm_cpuid_entry2;
use strum::{Display, EnumString, VariantNames};

/// Which features of the host's CPU a guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum CpuModel {
    /// All that KVM supports without SGX, encrypted memory, performance counters, branch records, PKS, AMX, and nested
    /// virtualization (nothing here keeps a nested guest's state across a reset).
    #[default]
    Masked,
    /// All that KVM supports.
    Passthrough,
}

/// Which register of a leaf.
#[derive(Clone, Copy)]
enum Register {
    A,
    B,
    C,
    D,
}
use Register::{A, B, C, D};

/// Bits that are taken away: leaf, sub-leaf, register, bits.
const BITS: [(u32, u32, Register, u32); 13] = [
    // 2 DTES64 and 4 DS-CPL (stores of branch records), 5 VMX, 6 SMX, 15 PDCM (performance capabilities)
    (1, 0, C, 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 15),
    // 21 DS
    (1, 0, D, 1 << 21),
    // 2 SGX, 25 Intel PT
    (7, 0, B, 1 << 2 | 1 << 25),
    // 30 SGX_LC, 31 PKS
    (7, 0, C, 1 << 30 | 1 << 31),
    // 1 SGX_KEYS, 19 ARCH_LBR
    (7, 0, D, 1 << 1 | 1 << 19),
    // 8 ARCH_PERFMON_EXT
    (7, 1, A, 1 << 8),
    // XCR0: tiles
    (0xd, 0, A, XCR0_AMX),
    // 4 XFD: only tiles are disabled by it
    (0xd, 1, A, 1 << 4),
    // IA32_XSS: 8 PT, 15 LBR
    (0xd, 1, C, XSS_TRACES),
    // 2 SVM, 10 IBS, 12 SKINIT, 23 PERFCTR_CORE, 24 PERFCTR_NB, 27 PTSC, 28 PERFCTR_LLC
    (0x8000_0001, 0, C, 1 << 2 | 1 << 10 | 1 << 12 | 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28),
    // 1 SEV, 3 SEV-ES, 4 SEV-SNP, and 0 SME, which only the host can use
    (0x8000_001f, 0, A, 0x1b),
    // 0 PERFMON_V2, 1 LBR_V2, 2 LBR_AND_PMC_FREEZE
    (0x8000_0022, 0, A, 0x7),
    (0x8000_0022, 0, B, u32::MAX),
];

const XCR0_AMX: u32 = 1 << 17 | 1 << 18;
const XSS_TRACES: u32 = 1 << 8 | 1 << 15;

/// Leaves that describe only what is taken away: performance counters, SGX, PT, LBR, more counters; SVM, IBS. The CPU answers
/// zeroes for a leaf that is missing.
const LEAVES: [u32; 7] = [0xa, 0x12, 0x14, 0x1c, 0x23, 0x8000_000a, 0x8000_001b];
/// Leaves that describe AMX: tiles, their multiplication.
const AMX_LEAVES: [u32; 2] = [0x1d, 0x1e];
/// Features that need tiles in XCR0: leaf 7's AMX_BF16, AMX_TILE, AMX_INT8; and in sub-leaf 1 AMX_FP16 and AMX_COMPLEX.
const AMX: [(u32, u32, Register, u32); 3] =
    [(7, 0, D, 1 << 22 | 1 << 24 | 1 << 25), (7, 1, A, 1 << 21), (7, 1, D, 1 << 8)];

/// Takes away from `entries` what `model` does not show, and what the rest then contradicts.
pub(super) fn apply(entries: &mut Vec<kvm_cpuid_entry2>, model: CpuModel) {
    if model == CpuModel::Masked {
        BITS.iter().for_each(|&bits| clear(entries, bits));
        entries.retain(|entry| !LEAVES.contains(&entry.function));
    }
    make_consistent(entries);
}

fn clear(entries: &mut [kvm_cpuid_entry2], (function, index, register, bits): (u32, u32, Register, u32)) {
    for entry in entries.iter_mut().filter(|e| (e.function, e.index) == (function, index)) {
        let word = match register {
            A => &mut entry.eax,
            B => &mut entry.ebx,
            C => &mut entry.ecx,
            D => &mut entry.edx,
        };
        *word &= !bits;
    }
}

/// XSAVE's state components are those of XCR0 and IA32_XSS and no others, its largest area has room for them and no more, and
/// there is no AMX without tiles: KVM leaves tiles out of XCR0 where a process has not asked for them, and not out of leaf 7.
fn make_consistent(entries: &mut Vec<kvm_cpuid_entry2>) {
    let find = |entries: &[kvm_cpuid_entry2], index| {
        entries.iter().find(|e| (e.function, e.index) == (0xd, index)).copied()
    };
    let xcr0 = find(entries, 0).map_or(0, |e| u64::from(e.edx) << 32 | u64::from(e.eax));
    let xss = find(entries, 1).map_or(0, |e| u64::from(e.edx) << 32 | u64::from(e.ecx));
    if xcr0 & u64::from(XCR0_AMX) != u64::from(XCR0_AMX) {
        AMX.iter().for_each(|&bits| clear(entries, bits));
        entries.retain(|entry| !AMX_LEAVES.contains(&entry.function));
    }
    let component = |index: u32| (2..64).contains(&index);
    let kept = |index: u32| (xcr0 | xss) >> index & 1 == 1;
    entries.retain(|e| e.function != 0xd || !component(e.index) || kept(e.index));
    /// The legacy area and the header: there is no smaller one.
    const SMALLEST: u32 = 512 + 64;
    let ends = entries.iter().filter(|e| e.function == 0xd && component(e.index) && xcr0 >> e.index & 1 == 1);
    // Size and offset.
    let largest = ends.map(|e| e.eax.saturating_add(e.ebx)).fold(SMALLEST, u32::max);
    for area in entries.iter_mut().filter(|e| (e.function, e.index) == (0xd, 0)) {
        area.ecx = largest;
        // KVM counts it anew with each XCR0.
        area.ebx = area.ebx.min(largest);
    }
}

#[cfg(test)]
#[path = "cpuid_mask_tests.rs"]
mod tests;
