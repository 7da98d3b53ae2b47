use super::*;

fn host() -> Vec<kvm_cpuid_entry2> {
    let leaf = |function, index, eax| kvm_cpuid_entry2 { function, index, eax, ..Default::default() };
    vec![
        kvm_cpuid_entry2 { ebx: u32::from_le_bytes(*b"Auth"), ..leaf(0, 0, 0x1f) },
        leaf(1, 0, 0x806f8),
        leaf(4, 0, 0x21),
        leaf(4, 3, 0x63),
        leaf(4, 4, 0),
        leaf(0xb, 0, 7),
        leaf(0x8000_0008, 0, 0x3028),
        leaf(0x8000_001e, 0, 99),
    ]
}

fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut found = entries.iter().filter(|e| e.function == function && e.index == index);
    let entry = *found.next().unwrap();
    assert!(found.next().is_none(), "leaf {function:x} twice");
    entry
}

#[test]
fn every_place_of_the_apic_id_agrees() {
    for index in 0..16u32 {
        let cpuid = for_vcpu(&host(), index as u8, 16, CpuModel::Masked);
        assert_eq!(get(&cpuid, 1, 0).ebx >> 24, index);
        assert_eq!(get(&cpuid, 0xb, 0).edx, index);
        assert_eq!(get(&cpuid, 0xb, 1).edx, index);
        assert_eq!(get(&cpuid, 0x1f, 1).edx, index);
        assert_eq!(get(&cpuid, 0x8000_001e, 0).eax, index);
    }
}

#[test]
fn every_place_of_the_count_agrees() {
    let cpuid = for_vcpu(&host(), 0, 3, CpuModel::Masked);
    assert_eq!(get(&cpuid, 1, 0).ebx >> 16 & 0xff, 3);
    assert_eq!(get(&cpuid, 0xb, 1).ebx, 3);
    assert_eq!(get(&cpuid, 0xb, 1).eax, 2);
    assert_eq!(get(&cpuid, 0x8000_0008, 0).ecx, 2 << 12 | 2);
    assert_eq!(get(&cpuid, 4, 0).eax >> 14 & 0xfff, 0, "first-level caches are private");
    assert_eq!(get(&cpuid, 4, 3).eax >> 14 & 0xfff, 3, "the third level is shared");
    assert_eq!(get(&cpuid, 4, 0).eax >> 26, 3);
}

#[test]
fn leaves_beyond_the_hosts_are_not_made_up() {
    let mut host = host();
    host[0].eax = 0xa;
    let cpuid = for_vcpu(&host, 0, 2, CpuModel::Masked);
    assert!(!cpuid.iter().any(|e| matches!(e.function, 0xb | 0x1f)));
}

#[test]
fn a_guest_can_tell_that_it_is_one() {
    assert_ne!(get(&for_vcpu(&host(), 0, 1, CpuModel::Masked), 1, 0).ecx & 1 << 31, 0);
}

#[test]
fn intel_leaves_get_nothing_of_amds() {
    let mut host = host();
    host[0].ebx = u32::from_le_bytes(*b"Genu");
    host.push(kvm_cpuid_entry2 { function: 0x8000_0001, ..Default::default() });
    let cpuid = for_vcpu(&host, 1, 4, CpuModel::Masked);
    assert_eq!(get(&cpuid, 0x8000_0008, 0).ecx, 0);
    assert_eq!(get(&cpuid, 0x8000_0001, 0).ecx, 0);
}

#[test]
fn a_guest_is_offered_no_virtualization_of_its_own() {
    let leaf = |function, ecx| kvm_cpuid_entry2 { function, ecx, ..Default::default() };
    let host = [leaf(0, 0), leaf(1, u32::MAX), leaf(0x8000_0001, u32::MAX), leaf(0x8000_000a, 0)];
    let cpuid = for_vcpu(&host, 0, 1, CpuModel::Masked);
    assert_eq!(get(&cpuid, 1, 0).ecx & 1 << 5, 0, "VMX");
    assert_eq!(get(&cpuid, 0x8000_0001, 0).ecx & 1 << 2, 0, "SVM");
    assert!(cpuid.iter().all(|e| e.function != 0x8000_000a));
}
