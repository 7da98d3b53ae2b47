use std::fmt;
use std::fs;

use crate::vfio::Host;

/// Whether a passed-through device's interrupt can go directly to a running vCPU, without the host (posted interrupts on
/// Intel, AVIC on AMD): the CPU's side, the IOMMU's, and whether KVM may use the two together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Whether KVM has a virtual APIC that can be posted to.
    pub cpu: Result<(), Obstacle>,
    /// Whether the IOMMU can post, and posting is enabled.
    pub iommu: Result<(), Obstacle>,
    /// Whether KVM's parameters allow it.
    pub kvm: Result<(), Obstacle>,
}

/// What prevents posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason, as a clause.
    pub what: String,
    /// What to do about it; `None`: nothing can be done.
    pub fix: Option<String>,
}

/// Words on the kernel's command line that disable posting (Linux, Documentation/admin-guide/kernel-parameters.txt).
const SWITCHED_OFF: [&str; 4] = ["intremap=off", "nointremap", "intremap=nopost", "amd_iommu_intr=legacy"];

impl Posting {
    /// Reads module parameters, IOMMU capabilities, and the kernel's command line.
    pub fn read(host: &Host) -> Posting {
        Posting { cpu: cpu(host), iommu: iommu(host), kvm: kvm(host) }
    }

    /// Whether nothing prevents it.
    pub fn possible(&self) -> bool {
        self.obstacles().next().is_none()
    }

    /// What prevents it.
    pub fn obstacles(&self) -> impl Iterator<Item = &Obstacle> {
        // KVM's parameter is off as a consequence if one of the other two is missing.
        let kvm = self.kvm.as_ref().err().filter(|_| self.cpu.is_ok() && self.iommu.is_ok());
        [self.cpu.as_ref().err(), self.iommu.as_ref().err(), kvm].into_iter().flatten()
    }
}

impl fmt::Display for Posting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.obstacles().map(|obstacle| obstacle.what.as_str()).collect();
        match &reasons[..] {
            [] => f.write_str(
                "possible: with irq=kernel the host's vfio-msix counts stand still while a vCPU runs",
            ),
            _ => write!(
                f,
                "not possible here: {}; each interrupt is handled by the host first",
                reasons.join("; ")
            ),
        }
    }
}

fn obstacle(what: impl Into<String>, fix: Option<&str>) -> Result<(), Obstacle> {
    Err(Obstacle { what: what.into(), fix: fix.map(String::from) })
}

fn parameter(host: &Host, module: &str, name: &str) -> Option<bool> {
    let text = fs::read_to_string(host.path(format!("sys/module/{module}/parameters/{name}"))).ok()?;
    Some(matches!(text.trim(), "Y" | "1"))
}

fn cpu(host: &Host) -> Result<(), Obstacle> {
    match (parameter(host, "kvm_intel", "enable_apicv"), parameter(host, "kvm_amd", "avic")) {
        (Some(true), _) | (_, Some(true)) => Ok(()),
        (Some(false), _) => obstacle(
            "kvm_intel runs without APICv (its parameter enable_apicv is N)",
            Some("load kvm_intel with enable_apicv=1, if the CPU has it"),
        ),
        (_, Some(false)) => obstacle(
            "kvm_amd runs without AVIC (its parameter avic is N)",
            Some("load kvm_amd with avic=1, if the CPU has it"),
        ),
        (None, None) => obstacle("neither kvm_intel nor kvm_amd is loaded", None),
    }
}

/// Kernels of 2025 and later have one parameter for both sides, which can also switch posting off.
fn kvm(host: &Host) -> Result<(), Obstacle> {
    let name = "enable_device_posted_irqs";
    match parameter(host, "kvm_intel", name).or_else(|| parameter(host, "kvm_amd", name)) {
        Some(false) => obstacle(
            "KVM does not post interrupts of devices (its parameter enable_device_posted_irqs is N)",
            Some("load kvm_intel or kvm_amd with enable_device_posted_irqs=1"),
        ),
        _ => Ok(()),
    }
}

/// Intel: bit 59 of the capability register (VT-d 10.4.2). AMD: GASup and GAMSup, bits 7 and 21 of the extended features
/// (IOMMU specification, MMIO offset 0x30). Linux requires it of all IOMMUs.
fn iommu(host: &Host) -> Result<(), Obstacle> {
    let dir = host.path("sys/class/iommu");
    let units: Vec<_> = fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let register = |path| {
        let text: String = fs::read_to_string(path).ok()?;
        u64::from_str_radix(text.trim().split(':').next()?, 16).ok()
    };
    let intel: Vec<u64> = units.iter().filter_map(|unit| register(unit.join("intel-iommu/cap"))).collect();
    let amd: Vec<u64> = units.iter().filter_map(|unit| register(unit.join("amd-iommu/features"))).collect();
    if intel.is_empty() && amd.is_empty() {
        return obstacle(
            "no IOMMU is in use",
            Some("switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on on Intel"),
        );
    }
    let posts =
        intel.iter().all(|cap| cap >> 59 & 1 == 1) && amd.iter().all(|f| f >> 7 & 1 == 1 && f >> 21 & 1 == 1);
    if !posts {
        return obstacle("the IOMMU cannot post interrupts", None);
    }
    let cmdline = fs::read_to_string(host.path("proc/cmdline")).unwrap_or_default();
    match cmdline.split_whitespace().find(|word| SWITCHED_OFF.contains(word)) {
        Some(word) => obstacle(
            format!("{word} on the kernel's command line switches it off"),
            Some(&format!("boot without {word}")),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::testing::host_tree::Tree;

    /// VT-d registers of machines with and without bit 59.
    const POSTS: &str = "8d2078c106f0466\n";
    const POSTS_NOT: &str = "d2008c40660462\n";

    fn intel() -> Tree {
        let tree = Tree::new();
        tree.file("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
        tree.file("sys/class/iommu/dmar0/intel-iommu/cap", POSTS);
        tree
    }

    fn said(tree: &Tree) -> String {
        let posting = Posting::read(&tree.host());
        assert!(!posting.possible());
        posting.to_string()
    }

    #[test]
    fn both_the_cpu_and_the_iommu_must_be_able_to() {
        let tree = Tree::new();
        assert_eq!(
            said(&tree),
            "not possible here: neither kvm_intel nor kvm_amd is loaded; no IOMMU is in use; each interrupt is handled by \
             the host first"
        );
        let tree = intel();
        assert!(Posting::read(&tree.host()).possible());
        // One IOMMU that cannot is enough.
        tree.file("sys/class/iommu/dmar1/intel-iommu/cap", POSTS_NOT);
        assert!(said(&tree).contains("the IOMMU cannot post"));
    }

    #[test]
    fn amd_says_it_by_avic_and_its_extended_features() {
        let tree = Tree::new();
        tree.file("sys/module/kvm_amd/parameters/avic", "N\n");
        tree.file("sys/class/iommu/ivhd0/amd-iommu/features", "246577efa2254afa:0\n");
        let posting = Posting::read(&tree.host());
        assert!(posting.iommu.is_ok() && said(&tree).contains("without AVIC"));
        let fixes: Vec<_> = posting.obstacles().map(|obstacle| obstacle.fix.as_deref()).collect();
        assert_eq!(fixes, [Some("load kvm_amd with avic=1, if the CPU has it")]);
        tree.file("sys/module/kvm_amd/parameters/avic", "1\n");
        assert!(Posting::read(&tree.host()).possible());
    }

    #[test]
    fn what_was_switched_off_is_named() {
        let tree = intel();
        tree.file("sys/module/kvm_intel/parameters/enable_device_posted_irqs", "N\n");
        assert!(said(&tree).contains("enable_device_posted_irqs"));
        tree.file("proc/cmdline", "ro intel_iommu=on intremap=nopost quiet\n");
        let said = said(&tree);
        assert!(said.contains("intremap=nopost") && !said.contains("enable_device"), "{said}");
    }
}
