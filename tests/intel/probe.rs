//! Kicks and completions of the probe guest: each through its own function of Intel's KVM, exactly as often as there were
//! some. One request after the other, each with a kick and an interrupt.

use std::fs;
use std::process::Command;

use doorbell::bench::PROBE_ELF;
use doorbell::observe::kernel::Counts;

use crate::counted::{self, Access, Accesses, hits, sampled, through};
use crate::need_intel;
use crate::support::{disks, ground};

/// Three rounds of them are fewer than there is room for stacks (256).
const REQUESTS: u64 = 80;

/// Counts what the kernel does while the probe runs with one disk, from its first kick to its end.
fn run(disk: &str, more: &str) -> Counts {
    let evidence = counted::start();
    let said = guest(disk, &format!("requests={REQUESTS} {more}"));
    let counts = evidence.stop().expect("tracefs can be read");
    println!("{disk} {more}\n{said}{counts}");
    counts
}

/// Runs the probe with one disk; returns what it and doorbell said.
fn guest(disk: &str, orders: &str) -> String {
    guest_with(disk, orders, &[])
}

/// The same, with more words for `doorbell run`.
pub fn guest_with(disk: &str, orders: &str, more: &[&str]) -> String {
    let directory = disks::directory();
    let kernel = directory.path().join("probe");
    fs::write(&kernel, PROBE_ELF).expect("cannot write the probe");
    let output = Command::new(ground::doorbell())
        .arg("run")
        .arg("--kernel")
        .arg(&kernel)
        .args(["--cmdline", &format!("op=verify wait=halt always_kick=1 {orders}")])
        .args(["--disk", &format!("backend=mem,size=1M,moderate=off,{disk}")])
        .args(more)
        .output()
        .expect("doorbell can be started");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The probe ends with a reset of the machine.
    assert_eq!(output.status.code(), Some(5), "{disk}\n{said}{errors}");
    // What it read is what it wrote, and nothing came twice: the probe says so only then.
    assert!(said.contains(r#""event":"end","ok":true"#), "{disk}\n{said}{errors}");
    format!("{said}{errors}")
}

/// All kicks came by an ioeventfd, and all of them in one of two ways: (fast, emulated).
fn ways(counts: &Counts, kicks: u64) -> (u64, u64) {
    assert_eq!(hits(counts, "ioeventfd_write"), kicks, "{counts}");
    let (fast, emulated) = ["handle_ept_misconfig", "x86_emulate_instruction"]
        .map(|way| through(counts, "ioeventfd_write", way))
        .into();
    assert_eq!(fast + emulated, sampled(counts, "ioeventfd_write"), "{counts}");
    (fast, emulated)
}

#[test]
fn kicks_of_length_0_are_fast_but_for_the_first() {
    need_intel!();
    let accesses = Accesses::start();
    let counts = run("notify=fast-mmio", "");
    let accesses = accesses.stop();
    // The page is not known as MMIO before it is touched: that is an EPT violation, and emulated. Then it is misconfigured
    // on purpose, and an exit for that reason needs no look at the instruction.
    assert_eq!(ways(&counts, REQUESTS), (REQUESTS - 1, 1), "{counts}");
    assert_eq!(hits(&counts, "kvm:kvm_fast_mmio"), REQUESTS - 1, "{counts}");
    let fast = accesses.iter().find(|access| matches!(access, Access::Fast(_)));
    let Some(&Access::Fast(register)) = fast else { panic!("{accesses:x?}") };
    let there: Vec<_> = accesses
        .into_iter()
        .filter(|access| matches!(access, Access::Fast(at) | Access::Violation(at) if *at == register))
        .collect();
    assert_eq!(there[0], Access::Violation(register), "{there:x?}");
    assert!(there[1..].iter().all(|access| *access == Access::Fast(register)), "{there:x?}");
    assert_eq!(there.len() as u64, REQUESTS, "{there:x?}");
}

#[test]
fn a_bar_that_moves_takes_its_fast_doorbell_along() {
    need_intel!();
    let accesses = Accesses::start();
    // Away, and back to where it was.
    let counts = run("notify=fast-mmio", "rounds=3 move_bar=1");
    let accesses = accesses.stop();
    let mut registers = Vec::new();
    for access in &accesses {
        if let Access::Fast(register) = access
            && registers.last() != Some(register)
        {
            registers.push(*register);
        }
    }
    let [first, second, third] = registers[..] else { panic!("{registers:x?}") };
    assert!(first == third && first != second, "{registers:x?}");
    // Each place is touched for the first time once: coming back, KVM still knows the page as MMIO.
    for register in [first, second] {
        let violations = accesses.iter().filter(|access| **access == Access::Violation(register)).count();
        assert_eq!(violations, 1, "{register:#x}");
    }
    assert_eq!(ways(&counts, 3 * REQUESTS), (3 * REQUESTS - 2, 2), "{counts}");
    assert_eq!(hits(&counts, "kvm:kvm_fast_mmio"), 3 * REQUESTS - 2, "{counts}");
}

#[test]
fn kicks_of_a_length_are_emulated() {
    need_intel!();
    let counts = run("notify=mmio", "");
    assert_eq!(ways(&counts, REQUESTS), (0, REQUESTS), "{counts}");
    assert_eq!(hits(&counts, "kvm:kvm_fast_mmio"), 0, "{counts}");
    // They are misconfigurations just as well, all but the first; what differs is what comes of them.
    assert!(hits(&counts, "handle_ept_misconfig") >= REQUESTS - 1, "{counts}");
    assert!(hits(&counts, "x86_emulate_instruction") >= REQUESTS, "{counts}");
}

#[test]
fn an_irqfd_and_an_ioctl_end_in_the_same_function() {
    need_intel!();
    let irqfd = run("complete=irqfd", "");
    assert_eq!(hits(&irqfd, "irqfd_wakeup"), REQUESTS, "{irqfd}");
    assert_eq!(hits(&irqfd, "kvm_arch_set_irq_inatomic"), REQUESTS, "{irqfd}");
    assert_eq!(hits(&irqfd, "kvm_send_userspace_msi"), 0, "{irqfd}");
    delivered(&irqfd, "irqfd_wakeup");

    let ioctl = run("complete=signal-msi", "");
    assert_eq!(hits(&ioctl, "kvm_send_userspace_msi"), REQUESTS, "{ioctl}");
    assert_eq!(hits(&ioctl, "irqfd_wakeup"), 0, "{ioctl}");
    delivered(&ioctl, "kvm_send_userspace_msi");
}

/// Every completion went through `way` to the vCPU's vendor, and nothing else did.
fn delivered(counts: &Counts, way: &str) {
    assert_eq!(hits(counts, "vmx_deliver_interrupt"), REQUESTS, "{counts}");
    assert_eq!(through(counts, "vmx_deliver_interrupt", way), REQUESTS, "{counts}");
}

#[test]
fn vectors_masked_and_moved_under_way_lose_nothing() {
    need_intel!();
    for complete in ["irqfd", "signal-msi"] {
        let disk = format!("notify=fast-mmio,complete={complete}");
        // Each completion behind a mask is pending until the mask is off, and then delivered.
        let counts = run(&disk, "mask_every=10 hold_us=100");
        assert_eq!(hits(&counts, "vmx_deliver_interrupt"), REQUESTS, "{counts}");
        // Two vectors can be waited for at once only by looking at them.
        let counts = run(&disk, "wait=spin route_every=10 vector2=0x50");
        assert_eq!(hits(&counts, "vmx_deliver_interrupt"), REQUESTS, "{counts}");
    }
}
