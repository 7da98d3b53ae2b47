//! `doorbell check` on Intel's KVM.

use std::process::Command;

use crate::need_intel;
use crate::support::ground;

#[test]
fn vt_x_and_fast_mmio_are_found() {
    need_intel!();
    let output = Command::new(ground::doorbell()).arg("check").output().expect("doorbell can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "a Linux guest can boot here\n{text}");
    let is = |mark: &str, name: &str, found: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(mark) && line.contains(name));
        assert!(lines.any(|line| line.contains(found)), "no line '{mark} {name} {found}'\n{text}");
    };
    is("present", "hardware virtualization", "VT-x");
    is("present", "fast MMIO", "EPT misconfigurations");
    is("present", "KVM_CAP_IOEVENTFD_ANY_LENGTH", "length 0");
    if ground::in_lab() {
        // That machine has neither APICv nor an IOMMU.
        is("absent", "posting to a vCPU", "this CPU has no APICv");
        is("absent", "posting by a device", "no IOMMU");
        is("absent", "IOMMU", "0 groups");
    }
}

#[test]
fn the_hardware_report_finds_each_assumption_as_expected() {
    need_intel!();
    let output = Command::new(ground::doorbell())
        .args(["check", "--hardware-report"])
        .output()
        .expect("doorbell can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let rows = text.lines().filter(|line| line.contains("| as expected |")).count();
    assert_eq!(rows, 9, "all that can run unattended\n{text}");
    assert!(
        text.contains("| fast MMIO | as expected | each request completed once; kvm:kvm_fast_mmio 199"),
        "{text}"
    );
}
