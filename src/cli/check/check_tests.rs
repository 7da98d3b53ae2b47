use super::*;

#[test]
fn a_line_tells_state_finding_and_fix() {
    let there = Item::new("io_uring", false, true, "yes").or("never shown");
    assert_eq!(there.line(10), "present  io_uring    yes");
    let needed = Item::new("/dev/kvm", true, false, "no such device").or("load kvm");
    assert_eq!(needed.line(10), "MISSING  /dev/kvm    no such device; load kvm");
    assert!(Item::new("IOMMU", false, false, "none").line(1).starts_with("absent "));
}

#[test]
fn kernel_releases_are_compared_as_numbers() {
    assert_eq!(host::parse_release("6.1.0-56-cloud-amd64"), (6, 1));
    assert_eq!(host::parse_release("6.19-rc1"), (6, 19));
    assert!(host::parse_release("6.18.44") < (6, 19) && host::parse_release("7.0.1") > (6, 19));
    assert_eq!(host::parse_release("?"), (0, 0));
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = kvm::items().iter().chain(&host::items()).map(|item| item.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// What `check` says of posted interrupts on a host with these files.
fn posted_interrupts(files: &[(&str, &str)]) -> [String; 2] {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    host::posted_interrupts(&crate::host::Posting::read(dir.path())).map(|item| item.line(19))
}

#[test]
fn posting_to_a_vcpu_and_by_a_device_are_two_facts() {
    let intel = ("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
    let can = ("sys/class/iommu/dmar0/intel-iommu/cap", "8d2078c106f0466\n");
    let cannot = ("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n");
    let to_vcpu =
        "present  posting to a vCPU    what KVM delivers reaches a running vCPU without an exit".to_string();
    assert_eq!(
        posted_interrupts(&[intel, can]),
        [
            to_vcpu.clone(),
            "present  posting by a device  interrupts of --vfio devices reach a running vCPU without the host".into()
        ]
    );
    assert_eq!(
        posted_interrupts(&[intel, cannot]),
        [to_vcpu, "absent   posting by a device  the IOMMU cannot post interrupts".into()]
    );
    assert_eq!(
        posted_interrupts(&[("sys/module/kvm_amd/parameters/avic", "N\n"), cannot]),
        [
            "absent   posting to a vCPU    kvm_amd runs without AVIC (its parameter avic is N); load kvm_amd with avic=1, if \
             the CPU has it",
            "absent   posting by a device  kvm_amd runs without AVIC (its parameter avic is N); the IOMMU cannot post \
             interrupts; load kvm_amd with avic=1, if the CPU has it",
        ]
    );
}
