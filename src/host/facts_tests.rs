use super::*;

const CPUINFO: &str = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu svm hypervisor\n\n\
                       processor\t: 1\nmodel name\t: Other\nflags\t\t: fpu vmx\n";

#[test]
fn the_first_cpu_speaks_for_all() {
    assert_eq!(cpu_model(CPUINFO).as_deref(), Some("Some CPU @ 2.00GHz"));
    assert!(has_flag(CPUINFO, "svm") && has_flag(CPUINFO, "hypervisor"));
    assert!(!has_flag(CPUINFO, "vmx") && !has_flag(CPUINFO, "sv"));
    assert_eq!(cpu_model("model name\t:\n"), None);
    assert!(!has_flag("", "svm"));
}

#[test]
fn this_host_can_be_described() {
    let facts = HostFacts::here();
    assert!(facts.cpus >= 1 && facts.kernel.is_some());
    assert!(facts.sentence().contains("Linux"));
    // A device posts only to what can be posted to.
    let (vcpu, device) = (facts.posted_to_vcpu.unwrap(), facts.posted_by_device.unwrap());
    assert!(vcpu.possible || !device.possible);
    assert!(vcpu.possible == vcpu.reason.is_none() && device.possible == device.reason.is_none());
    assert!(!(facts.lab && facts.hardware_virtualization));
}
