use super::*;

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

const ALL: [u32; 4] = [u32::MAX; 4];

/// A CPU that has everything, as no maker's has.
fn host() -> Vec<kvm_cpuid_entry2> {
    let mut all: Vec<_> = [1, 7, 0xa, 0x12, 0x14, 0x1c, 0x1d, 0x1e, 0x23].map(|f| leaf(f, 0, ALL)).to_vec();
    all.extend([0x8000_0001, 0x8000_000a, 0x8000_001b, 0x8000_001f, 0x8000_0022].map(|f| leaf(f, 0, ALL)));
    all.push(leaf(7, 1, ALL));
    // x87, SSE, AVX, AVX-512 (5, 6, 7), PKU (9), tiles (17, 18); PT (8), CET (11) and LBR (15) in IA32_XSS.
    all.push(leaf(0xd, 0, [0x6_02e7, 11008, 11008, 0]));
    all.push(leaf(0xd, 1, [0x1f, 11008, 1 << 8 | 1 << 11 | 1 << 15, 0]));
    let components = [
        (2, 256, 576),
        (5, 64, 1088),
        (6, 512, 1152),
        (7, 1024, 1664),
        (8, 128, 0),
        (9, 8, 2688),
        (11, 16, 0),
        (15, 808, 0),
        (17, 64, 2752),
        (18, 8192, 2816),
    ];
    all.extend(components.map(|(n, size, offset)| leaf(0xd, n, [size, offset, 0, 0])));
    all
}

fn masked(model: CpuModel) -> Vec<kvm_cpuid_entry2> {
    let mut entries = host();
    apply(&mut entries, model);
    entries
}

fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> Option<[u32; 4]> {
    let entry = entries.iter().find(|e| (e.function, e.index) == (function, index))?;
    Some([entry.eax, entry.ebx, entry.ecx, entry.edx])
}

fn missing(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> [Vec<u32>; 4] {
    get(entries, function, index).unwrap().map(|word| (0..32).filter(|bit| word >> bit & 1 == 0).collect())
}

#[test]
fn what_a_guest_with_disks_does_not_need_is_not_shown() {
    let cpu = masked(CpuModel::Masked);
    assert_eq!(missing(&cpu, 1, 0), [vec![], vec![], vec![2, 4, 5, 6, 15], vec![21]]);
    assert_eq!(missing(&cpu, 7, 0), [vec![], vec![2, 25], vec![30, 31], vec![1, 19, 22, 24, 25]]);
    assert_eq!(missing(&cpu, 7, 1), [vec![8, 21], vec![], vec![], vec![8]]);
    assert_eq!(missing(&cpu, 0x8000_0001, 0), [vec![], vec![], vec![2, 10, 12, 23, 24, 27, 28], vec![]]);
    assert_eq!(
        get(&cpu, 0x8000_001f, 0).unwrap()[0] & 0x1f,
        1 << 2,
        "the page flush MSR alone is no encryption"
    );
    for function in [0xa, 0x12, 0x14, 0x1c, 0x1d, 0x1e, 0x23, 0x8000_000a, 0x8000_001b] {
        assert_eq!(get(&cpu, function, 0), None, "{function:#x}");
    }
}

#[test]
fn passthrough_takes_nothing_away_from_what_fits_together() {
    let before: Vec<_> = host().iter().map(|e| (e.function, e.index, e.eax, e.ebx, e.ecx, e.edx)).collect();
    let after = masked(CpuModel::Passthrough);
    let after: Vec<_> = after.iter().map(|e| (e.function, e.index, e.eax, e.ebx, e.ecx, e.edx)).collect();
    assert_eq!(before, after);
}

#[test]
fn the_area_of_xsave_is_that_of_the_components_that_are_left() {
    let cpu = masked(CpuModel::Masked);
    assert_eq!(get(&cpu, 0xd, 0), Some([0x2e7, 2696, 2696, 0]), "it ends with PKU's 8 bytes at 2688");
    assert_eq!(get(&cpu, 0xd, 1).map(|[a, _, c, _]| (a, c)), Some((0xf, 1 << 11)));
    for (component, there) in
        [(2, true), (7, true), (8, false), (9, true), (11, true), (15, false), (18, false)]
    {
        assert_eq!(get(&cpu, 0xd, component).is_some(), there, "component {component}");
    }
}

#[test]
fn there_is_no_amx_where_kvm_leaves_tiles_out() {
    let mut cpu = host();
    clear(&mut cpu, (0xd, 0, A, XCR0_AMX));
    apply(&mut cpu, CpuModel::Passthrough);
    assert_eq!(missing(&cpu, 7, 0)[3], [22, 24, 25]);
    assert_eq!(get(&cpu, 0x1d, 0), None);
    assert_eq!(get(&cpu, 0xd, 18), None);
    assert_eq!(get(&cpu, 0xd, 0).map(|[_, _, largest, _]| largest), Some(2696));
}

#[test]
fn a_cpu_without_xsave_stays_without() {
    let mut cpu = vec![leaf(1, 0, ALL)];
    apply(&mut cpu, CpuModel::Masked);
    assert_eq!(cpu.len(), 1);
}
