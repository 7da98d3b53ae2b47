//! The kernel functions of Intel's paths, counted over a span, and what their stacks went through.

use std::fs;
use std::path::PathBuf;

use doorbell::observe::kernel::{Counts, Frame, KernelEvidence};

pub const NAMES: &[&str] = &[
    "kvm:kvm_fast_mmio",
    "handle_ept_misconfig",
    "x86_emulate_instruction",
    "ioeventfd_write",
    "irqfd_wakeup",
    "kvm_arch_set_irq_inatomic",
    "kvm_send_userspace_msi",
    "vmx_deliver_interrupt",
];

pub fn start() -> KernelEvidence {
    KernelEvidence::start(NAMES).expect("the lab's kernel can be traced")
}

pub fn hits(counts: &Counts, name: &str) -> u64 {
    counts.get(name).unwrap_or_else(|| panic!("this kernel has no {name}"))
}

/// How many of the sampled stacks that end in `function` went through `caller`.
pub fn through(counts: &Counts, function: &str, caller: &str) -> u64 {
    let tree = counts.stacks.iter().find(|tree| tree.function == function);
    tree.map_or(0, |tree| tree.roots.iter().map(|frame| passing(frame, caller)).sum())
}

/// How many stacks were sampled that end in `function`.
pub fn sampled(counts: &Counts, function: &str) -> u64 {
    counts.stacks.iter().find(|tree| tree.function == function).map_or(0, |tree| tree.samples)
}

fn passing(frame: &Frame, caller: &str) -> u64 {
    match frame.name == caller {
        true => frame.samples,
        false => frame.calls.iter().map(|frame| passing(frame, caller)).sum(),
    }
}

/// Page faults of guests and fast kicks, one after the other, by a tracing instance of its own.
pub struct Accesses {
    instance: PathBuf,
}

/// What happened at a guest physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An EPT violation.
    Violation(u64),
    /// A kick that KVM found by the address alone.
    Fast(u64),
}

impl Accesses {
    pub fn start() -> Accesses {
        let instance = PathBuf::from("/sys/kernel/tracing/instances/intel_accesses");
        fs::create_dir(&instance).expect("the lab's kernel can be traced");
        fs::write(instance.join("buffer_size_kb"), "4096").unwrap();
        for event in ["kvm_page_fault", "kvm_fast_mmio"] {
            fs::write(instance.join("events/kvm").join(event).join("enable"), "1").unwrap();
        }
        Accesses { instance }
    }

    pub fn stop(self) -> Vec<Access> {
        let trace = fs::read_to_string(self.instance.join("trace")).unwrap();
        let after = |line: &str, word: &str| {
            let hex = line.split_once(word)?.1.trim_start().strip_prefix("0x")?;
            u64::from_str_radix(hex.split(|c: char| !c.is_ascii_hexdigit()).next()?, 16).ok()
        };
        let access = |line: &str| {
            let fast = after(line, "fast mmio at gpa").map(Access::Fast);
            fast.or_else(|| after(line, " address").map(Access::Violation))
        };
        trace.lines().filter_map(access).collect()
    }
}

impl Drop for Accesses {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
    }
}
