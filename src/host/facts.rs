//! The facts about a host that a reader needs in order to understand figures measured on it.

use std::fs;

use serde::{Deserialize, Serialize};

use super::{Posted, Posting};

/// Facts about the host. `None` means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// CPU model name.
    pub cpu: Option<String>,
    /// How many CPUs this process may use.
    pub cpus: u64,
    /// Kernel release.
    pub kernel: Option<String>,
    /// "kvm_intel", "kvm_amd", "kvm_pvm"; `None`: there is no /dev/kvm, or KVM is built into the kernel.
    pub kvm_module: Option<String>,
    /// Whether the CPU itself runs the guest (VMX or SVM). `false` in the lab, where an emulator runs it.
    pub hardware_virtualization: bool,
    /// Whether this host is itself a virtual machine.
    pub virtual_machine: bool,
    /// Whether this is doorbell's lab. Every instruction is emulated there, so only counts and ratios are meaningful.
    pub lab: bool,
    /// Whether KVM posts what it delivers to a running vCPU (APICv, AVIC), and if not why.
    pub posted_to_vcpu: Option<Posted>,
    /// Whether a device posts its interrupts to a running vCPU (by the IOMMU), and if not why.
    pub posted_by_device: Option<Posted>,
    /// Longest time that KVM polls for a halted vCPU's next event before the thread sleeps, in nanoseconds (halt_poll_ns).
    pub halt_poll_ns: Option<u64>,
    /// The kernel's command line.
    pub kernel_cmdline: Option<String>,
    /// The kernel's mitigations of CPU vulnerabilities, "name: text", without vulnerabilities that this CPU does not have.
    pub mitigations: Option<Vec<String>>,
    /// Whether two threads share a core.
    pub smt: Option<bool>,
    /// How the frequency of the first CPU is chosen ("performance", "powersave", ...).
    pub governor: Option<String>,
    /// Version of doorbell, with the commit where it was built from a repository.
    pub doorbell: String,
}

/// scripts/lab sets this environment variable.
const LAB_VARIABLE: &str = "DOORBELL_LAB";
/// The lab's kernel command line has this word.
const LAB_WORD: &str = "doorbell.lab";

impl HostFacts {
    /// Reads the facts about this host.
    pub fn here() -> HostFacts {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let lab = std::env::var_os(LAB_VARIABLE).is_some_and(|value| value == "1")
            || cmdline.split_whitespace().any(|word| word.split('=').next() == Some(LAB_WORD));
        let module = ["kvm_intel", "kvm_amd", "kvm_pvm"]
            .into_iter()
            .find(|name| std::path::Path::new("/sys/module").join(name).exists());
        let posting = Posting::here();
        HostFacts {
            cpu: cpu_model(&cpuinfo),
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u64),
            kernel: line("/proc/sys/kernel/osrelease"),
            kvm_module: module.map(String::from),
            hardware_virtualization: !lab
                && matches!(module, Some("kvm_intel" | "kvm_amd"))
                && (has_flag(&cpuinfo, "vmx") || has_flag(&cpuinfo, "svm")),
            virtual_machine: has_flag(&cpuinfo, "hypervisor"),
            lab,
            posted_to_vcpu: Some(posting.to_vcpu()),
            posted_by_device: Some(posting.by_device()),
            halt_poll_ns: line("/sys/module/kvm/parameters/halt_poll_ns").and_then(|ns| ns.parse().ok()),
            kernel_cmdline: line("/proc/cmdline"),
            mitigations: mitigations("/sys/devices/system/cpu/vulnerabilities"),
            smt: line("/sys/devices/system/cpu/smt/active").map(|active| active == "1"),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            doorbell: env!("DOORBELL_VERSION").into(),
        }
    }

    /// Returns the facts as one line for display.
    pub fn sentence(&self) -> String {
        let unknown = || "unknown".to_string();
        let ground = match (self.lab, self.hardware_virtualization) {
            (true, _) => "the lab: emulated, so compare counts and ratios, not times",
            (_, true) => "hardware virtualization",
            (_, false) => "software virtualization",
        };
        format!(
            "{} ({} CPUs), Linux {}, {} ({ground})",
            self.cpu.clone().unwrap_or_else(unknown),
            self.cpus,
            self.kernel.clone().unwrap_or_else(unknown),
            self.kvm_module.clone().unwrap_or_else(|| "KVM".into()),
        )
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    field(cpuinfo, "model name").filter(|model| !model.is_empty()).map(String::from)
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|f| f == flag))
}

fn mitigations(directory: &str) -> Option<Vec<String>> {
    let mut all: Vec<String> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let text = line(path.to_str()?).filter(|text| text != "Not affected")?;
            Some(format!("{}: {text}", path.file_name()?.to_str()?))
        })
        .collect();
    all.sort();
    Some(all)
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
