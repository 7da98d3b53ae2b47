use super::*;

/// VT-d registers of machines with and without bit 59.
const POSTS: (&str, &str) = ("sys/class/iommu/dmar0/intel-iommu/cap", "8d2078c106f0466\n");
const POSTS_NOT: (&str, &str) = ("sys/class/iommu/dmar1/intel-iommu/cap", "d2008c40660462\n");
/// Extended features of an AMD IOMMU with GASup and GAMSup.
const AMD_POSTS: (&str, &str) = ("sys/class/iommu/ivhd0/amd-iommu/features", "246577efa2254afa:0\n");
const APICV: (&str, &str) = ("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
const NO_APICV: (&str, &str) = ("sys/module/kvm_intel/parameters/enable_apicv", "N\n");
const AVIC: (&str, &str) = ("sys/module/kvm_amd/parameters/avic", "1\n");
const NO_AVIC: (&str, &str) = ("sys/module/kvm_amd/parameters/avic", "N\n");

/// What a host with these files says: to a vCPU, by a device.
fn said(files: &[(&str, &str)]) -> (String, String) {
    let posting = read(files);
    (posting.to_vcpu().to_string(), posting.by_device().to_string())
}

fn read(files: &[(&str, &str)]) -> Posting {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Posting::read(dir.path())
}

#[test]
fn intel_with_apicv_posts_to_a_vcpu_and_by_a_device_only_with_an_iommu_that_can() {
    let possible = "possible".to_string();
    assert_eq!(said(&[APICV]), (possible.clone(), "not possible here: no IOMMU is in use".into()));
    assert_eq!(said(&[APICV, POSTS]), (possible.clone(), possible.clone()));
    // One that cannot is enough.
    let both = said(&[APICV, POSTS, POSTS_NOT]);
    assert_eq!(both, (possible, "not possible here: the IOMMU cannot post interrupts".into()));
}

#[test]
fn intel_without_apicv_says_whether_the_cpu_or_the_parameter_is_why() {
    let cpu = |flags| ("proc/cpuinfo", flags);
    let lacks = said(&[NO_APICV, POSTS, cpu("flags\t\t: vmx\nvmx flags\t: vnmi flexpriority\n")]);
    let expected = "not possible here: this CPU has no APICv (posted_intr is not among its vmx flags)";
    assert_eq!(lacks, (expected.into(), expected.into()));
    let off = read(&[NO_APICV, cpu("flags\t\t: vmx\nvmx flags\t: vnmi posted_intr\n")]);
    let off: Vec<_> = off.obstacles_to_vcpu().collect();
    assert!(off[0].what.contains("enable_apicv is N") && off[0].fix.is_some(), "{off:?}");
    // A kernel before 5.9 shows no such line.
    assert!(said(&[NO_APICV, cpu("flags\t\t: vmx\n")]).0.contains("enable_apicv is N"));
}

#[test]
fn amd_says_it_by_avic_and_its_extended_features() {
    let possible = "possible".to_string();
    assert_eq!(said(&[AVIC, AMD_POSTS]), (possible.clone(), possible.clone()));
    assert_eq!(said(&[AVIC]), (possible, "not possible here: no IOMMU is in use".into()));
    let off = read(&[NO_AVIC, AMD_POSTS]);
    assert!(off.iommu.is_ok());
    let fixes: Vec<_> = off.obstacles_by_device().map(|obstacle| obstacle.fix.as_deref()).collect();
    assert_eq!(fixes, [Some("load kvm_amd with avic=1, if the CPU has it")]);
    let lacks = said(&[NO_AVIC, ("proc/cpuinfo", "flags\t\t: svm npt\n")]).0;
    assert_eq!(lacks, "not possible here: this CPU has no AVIC (avic is not among its flags)");
}

#[test]
fn a_kvm_in_software_and_no_kvm_post_nothing_and_say_which_they_are() {
    let (vcpu, device) = said(&[("sys/module/kvm_pvm/refcnt", "0\n")]);
    assert_eq!(
        vcpu,
        "not possible here: kvm_pvm is a KVM in software and does not use the CPU's virtual APIC"
    );
    assert_eq!(device, format!("{vcpu}; no IOMMU is in use"));
    let (vcpu, device) = said(&[]);
    assert_eq!(vcpu, "not possible here: neither kvm_intel nor kvm_amd is loaded");
    assert_eq!(device, format!("{vcpu}; no IOMMU is in use"));
}

#[test]
fn posting_switched_off_for_devices_is_reported_and_does_not_concern_vcpus() {
    let off = ("sys/module/kvm_intel/parameters/enable_device_posted_irqs", "N\n");
    let (vcpu, device) = said(&[APICV, POSTS, off]);
    assert!(vcpu == "possible" && device.contains("enable_device_posted_irqs"), "{device}");
    let line = ("proc/cmdline", "ro intel_iommu=on intremap=nopost quiet\n");
    let (vcpu, device) = said(&[APICV, POSTS, off, line]);
    assert!(vcpu == "possible" && device.contains("intremap=nopost"), "{device}");
    assert!(!device.contains("enable_device"), "{device}");
}
