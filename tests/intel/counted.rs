//! The kernel functions of Intel's paths, counted over a span, and what their stacks went through.

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
