use std::fmt;
use std::fs;

use super::Host;

/// Whether a passed-through device's interrupt can go straight into a running vCPU, without the host (posted interrupts on
/// Intel, AVIC on AMD): the CPU's side and the IOMMU's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// KVM uses a virtual APIC with posting; else why not.
    pub cpu: Result<(), &'static str>,
    /// The IOMMU can post; else why not.
    pub iommu: Result<(), &'static str>,
}

impl Posting {
    /// Looks at module parameters and IOMMU capabilities.
    pub fn look(host: &Host) -> Posting {
        Posting { cpu: cpu(host), iommu: iommu(host) }
    }

    /// Both sides are there.
    pub fn possible(&self) -> bool {
        self.cpu.is_ok() && self.iommu.is_ok()
    }
}

impl fmt::Display for Posting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpu, self.iommu) {
            (Ok(()), Ok(())) => write!(
                f,
                "possible: with irq=kernel the host's vfio-msix counts stand still while a vCPU runs"
            ),
            (cpu, iommu) => {
                let reasons: Vec<_> = [cpu.err(), iommu.err()].into_iter().flatten().collect();
                write!(
                    f,
                    "not possible here: {}; each interrupt is handled by the host first",
                    reasons.join("; ")
                )
            }
        }
    }
}

fn parameter(host: &Host, module: &str, name: &str) -> Option<bool> {
    let text = fs::read_to_string(host.path(format!("sys/module/{module}/parameters/{name}"))).ok()?;
    Some(matches!(text.trim(), "Y" | "1"))
}

fn cpu(host: &Host) -> Result<(), &'static str> {
    match (parameter(host, "kvm_intel", "enable_apicv"), parameter(host, "kvm_amd", "avic")) {
        (Some(true), _) | (_, Some(true)) => Ok(()),
        (Some(false), _) => Err("kvm_intel runs without APICv (its parameter enable_apicv is N)"),
        (_, Some(false)) => Err("kvm_amd runs without AVIC (its parameter avic is N)"),
        (None, None) => Err("neither kvm_intel nor kvm_amd is loaded"),
    }
}

/// Intel: bit 59 of the capability register (VT-d 10.4.2). AMD: GASup and GAMSup, bits 7 and 21 of the extended features
/// (IOMMU specification, MMIO offset 0x30).
fn iommu(host: &Host) -> Result<(), &'static str> {
    let dir = host.path("sys/class/iommu");
    let units: Vec<_> = fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let register = |path| {
        let text: String = fs::read_to_string(path).ok()?;
        u64::from_str_radix(text.trim().split(':').next()?, 16).ok()
    };
    let intel: Vec<u64> = units.iter().filter_map(|unit| register(unit.join("intel-iommu/cap"))).collect();
    let amd: Vec<u64> = units.iter().filter_map(|unit| register(unit.join("amd-iommu/features"))).collect();
    if intel.is_empty() && amd.is_empty() {
        return Err("no IOMMU is in use");
    }
    let posts =
        intel.iter().all(|cap| cap >> 59 & 1 == 1) && amd.iter().all(|f| f >> 7 & 1 == 1 && f >> 21 & 1 == 1);
    if posts { Ok(()) } else { Err("the IOMMU cannot post interrupts") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn both_the_cpu_and_the_iommu_must_be_able_to() {
        let tree = Tree::new();
        let look = || Posting::look(&tree.host());
        assert_eq!(look().cpu, Err("neither kvm_intel nor kvm_amd is loaded"));
        assert_eq!(look().iommu, Err("no IOMMU is in use"));
        tree.file("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
        tree.file("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n");
        assert!(look().cpu.is_ok() && !look().possible());
        assert!(look().to_string().contains("the IOMMU cannot post"));
        tree.file("sys/class/iommu/dmar0/intel-iommu/cap", "8d2078c106f0466\n");
        assert!(look().possible());
    }

    #[test]
    fn amd_says_it_by_avic_and_its_extended_features() {
        let tree = Tree::new();
        tree.file("sys/module/kvm_amd/parameters/avic", "N\n");
        tree.file("sys/class/iommu/ivhd0/amd-iommu/features", "246577efa2254afa:0\n");
        let posting = Posting::look(&tree.host());
        assert!(posting.iommu.is_ok() && posting.to_string().contains("without AVIC"));
    }
}
