use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::Locked;
use super::thread::is_confined;

/// Posted interrupts are two facts. KVM can *post to a vCPU*: what it delivers (an irqfd, KVM_SIGNAL_MSI) reaches a running
/// vCPU without an exit; that takes a virtual APIC in the CPU, APICv of Intel or AVIC of AMD. And a *device* can post: its
/// interrupt goes straight to a running vCPU and no handler of the host runs; that takes the IOMMU as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Whether KVM uses the CPU's virtual APIC.
    pub vcpu: Result<(), Obstacle>,
    /// Whether the IOMMU can post, and posting is enabled.
    pub iommu: Result<(), Obstacle>,
    /// Whether KVM's parameters allow the two together.
    pub kvm: Result<(), Obstacle>,
}

/// What prevents posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason, as a clause.
    pub what: String,
    /// What to do about it, if anything.
    pub fix: Option<String>,
}

/// One of the two facts, for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Whether it can be done here.
    pub possible: bool,
    /// What prevents it; `None`: nothing.
    pub reason: Option<String>,
}

/// Words on the kernel's command line that disable posting (Linux, Documentation/admin-guide/kernel-parameters.txt).
const SWITCHED_OFF: [&str; 4] = ["intremap=off", "nointremap", "intremap=nopost", "amd_iommu_intr=legacy"];

/// What [`Posting::keep`] read.
static KEPT: Mutex<Option<Posting>> = Mutex::new(None);

impl Posting {
    /// Reads module parameters, CPU flags, IOMMU capabilities and the kernel's command line of the host whose file trees
    /// are below `root`.
    pub fn read(root: &Path) -> Posting {
        Posting { vcpu: vcpu(root), iommu: iommu(root), kvm: kvm(root) }
    }

    /// Those of this host; in a sandbox, which cannot read them, those that were there at its door.
    pub fn here() -> Posting {
        match KEPT.locked().clone() {
            Some(kept) if is_confined() => kept,
            _ => Posting::read(Path::new("/")),
        }
    }

    /// Reads them for the threads that will enter a sandbox.
    pub fn keep() {
        *KEPT.locked() = Some(Posting::read(Path::new("/")));
    }

    /// What prevents KVM from posting to a running vCPU.
    pub fn obstacles_to_vcpu(&self) -> impl Iterator<Item = &Obstacle> {
        self.vcpu.as_ref().err().into_iter()
    }

    /// What prevents a device from posting to a running vCPU.
    pub fn obstacles_by_device(&self) -> impl Iterator<Item = &Obstacle> {
        // KVM's parameter is off as a consequence if one of the other two is missing.
        let kvm = self.kvm.as_ref().err().filter(|_| self.vcpu.is_ok() && self.iommu.is_ok());
        [self.vcpu.as_ref().err(), self.iommu.as_ref().err(), kvm].into_iter().flatten()
    }

    /// Whether KVM posts to a running vCPU.
    pub fn to_vcpu(&self) -> Posted {
        Posted::by(self.obstacles_to_vcpu())
    }

    /// Whether a device does.
    pub fn by_device(&self) -> Posted {
        Posted::by(self.obstacles_by_device())
    }
}

impl Posted {
    fn by<'a>(obstacles: impl Iterator<Item = &'a Obstacle>) -> Posted {
        let reasons: Vec<_> = obstacles.map(|obstacle| obstacle.what.as_str()).collect();
        Posted {
            possible: reasons.is_empty(),
            reason: Some(reasons.join("; ")).filter(|reason| !reason.is_empty()),
        }
    }
}

impl fmt::Display for Posted {
    /// "possible", or "not possible here: " and what prevents it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            None => f.write_str("possible"),
            Some(reason) => write!(f, "not possible here: {reason}"),
        }
    }
}

fn obstacle(what: impl Into<String>, fix: Option<&str>) -> Result<(), Obstacle> {
    Err(Obstacle { what: what.into(), fix: fix.map(String::from) })
}

fn parameter(root: &Path, module: &str, name: &str) -> Option<bool> {
    let text = fs::read_to_string(root.join(format!("sys/module/{module}/parameters/{name}"))).ok()?;
    Some(matches!(text.trim(), "Y" | "1"))
}

/// Whether the first CPU has `flag`; `list` is the line of /proc/cpuinfo, "flags" or "vmx flags" (Linux 5.9). `None`: there
/// is no such line.
fn cpu_flag(root: &Path, list: &str, flag: &str) -> Option<bool> {
    let text = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let line = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == list)?;
    Some(line.1.split_whitespace().any(|word| word == flag))
}

/// `enable_apicv` of kvm_intel (arch/x86/kvm/vmx/vmx.c: it is N if the CPU lacks any part of it), `avic` of kvm_amd
/// (arch/x86/kvm/svm/avic.c; N by default in most kernels).
fn vcpu(root: &Path) -> Result<(), Obstacle> {
    let (intel, amd) = (parameter(root, "kvm_intel", "enable_apicv"), parameter(root, "kvm_amd", "avic"));
    match (intel, amd) {
        (Some(true), _) | (_, Some(true)) => Ok(()),
        (Some(false), _) if cpu_flag(root, "vmx flags", "posted_intr") == Some(false) => {
            obstacle("this CPU has no APICv (posted_intr is not among its vmx flags)", None)
        }
        (Some(false), _) => obstacle(
            "kvm_intel runs without APICv (its parameter enable_apicv is N)",
            Some("load kvm_intel with enable_apicv=1, if the CPU has it"),
        ),
        (_, Some(false)) if cpu_flag(root, "flags", "avic") == Some(false) => {
            obstacle("this CPU has no AVIC (avic is not among its flags)", None)
        }
        (_, Some(false)) => obstacle(
            "kvm_amd runs without AVIC (its parameter avic is N)",
            Some("load kvm_amd with avic=1, if the CPU has it"),
        ),
        (None, None) if root.join("sys/module/kvm_pvm").exists() => {
            obstacle("kvm_pvm is a KVM in software and does not use the CPU's virtual APIC", None)
        }
        (None, None) => obstacle("neither kvm_intel nor kvm_amd is loaded", None),
    }
}

/// Kernels of 2025 and later show the result for both sides in one parameter, which can also switch posting off.
fn kvm(root: &Path) -> Result<(), Obstacle> {
    let name = "enable_device_posted_irqs";
    match parameter(root, "kvm_intel", name).or_else(|| parameter(root, "kvm_amd", name)) {
        Some(false) => obstacle(
            "KVM does not post interrupts of devices (its parameter enable_device_posted_irqs is N)",
            Some("load kvm_intel or kvm_amd with enable_device_posted_irqs=1"),
        ),
        _ => Ok(()),
    }
}

/// Intel: bit 59 of the capability register (VT-d 10.4.2). AMD: GASup and GAMSup, bits 7 and 21 of the extended features
/// (IOMMU specification, MMIO offset 0x30). Linux requires it of all IOMMUs.
fn iommu(root: &Path) -> Result<(), Obstacle> {
    let dir = root.join("sys/class/iommu");
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
    let cmdline = fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
    match cmdline.split_whitespace().find(|word| SWITCHED_OFF.contains(word)) {
        Some(word) => obstacle(
            format!("{word} on the kernel's command line switches it off"),
            Some(&format!("boot without {word}")),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "posting_tests.rs"]
mod tests;
