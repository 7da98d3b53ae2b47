//! The kernel's own account: which of its functions ran while fio read, at depth 1, through each path.

use doorbell::observe::kernel::{Counts, EvidenceError, KernelEvidence};

use crate::need_machine;
use crate::support::ground;
use crate::support::guest::{Guest, WAIT};

const REQUESTS: u64 = 512;
/// What may run beside the requests: the serial port's interrupts.
const OTHERS: u64 = 64;

struct Path {
    options: &'static str,
    /// Kicks come by an ioeventfd.
    ioeventfd: bool,
    /// Completions go by an irqfd, else by KVM_SIGNAL_MSI.
    irqfd: bool,
}

const PATHS: [Path; 6] = [
    Path { options: "notify=fast-mmio,complete=irqfd", ioeventfd: true, irqfd: true },
    Path { options: "notify=fast-mmio,complete=signal-msi", ioeventfd: true, irqfd: false },
    Path { options: "notify=mmio,complete=signal-msi", ioeventfd: true, irqfd: false },
    Path { options: "notify=pio,complete=auto", ioeventfd: true, irqfd: true },
    Path { options: "notify=exit,complete=irqfd", ioeventfd: false, irqfd: true },
    Path { options: "notify=exit,complete=auto,iothread=none", ioeventfd: false, irqfd: false },
];

#[test]
fn the_kernel_functions_that_ran_are_those_of_the_path() {
    need_machine!();
    let names = ["ioeventfd_write", "irqfd_wakeup", "kvm_arch_set_irq_inatomic", "kvm_send_userspace_msi"];
    let evidence = match KernelEvidence::start(&names) {
        Ok(evidence) => evidence,
        Err(error @ (EvidenceError::NotMounted | EvidenceError::Permission | EvidenceError::Lockdown))
            if !ground::in_lab() =>
        {
            return println!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let script = format!(
        "for n in $(seq 0 {}); do
            disk=$(disk_by_serial d$n)
            mark ready
            {WAIT}
            fio --output=/dev/null --name=read --filename=$disk --ioengine=libaio --direct=1 --rw=randread --bs=4k --io_size={}
            mark over
            {WAIT}
        done",
        PATHS.len() - 1,
        REQUESTS * 4096
    );
    let mut guest = Guest::new(script);
    for (n, path) in PATHS.iter().enumerate() {
        guest = guest.disk(format!("serial=d{n},backend=mem,size=16M,moderate=off,{}", path.options));
    }
    let mut guest = guest.start();
    if ground::other_vms(guest.pid()) {
        return println!("skipped: other VMs run on this host, and its kernel counts for all of them");
    }
    let mut spans = Vec::new();
    for _ in &PATHS {
        guest.mark("ready");
        let before = evidence.read().expect("tracefs can be read");
        guest.go();
        guest.mark("over");
        spans.push((before, evidence.read().expect("tracefs can be read")));
        guest.go();
    }
    let outcome = guest.finish();

    for (n, (path, span)) in PATHS.iter().zip(&spans).enumerate() {
        let ran = |name: &str| hits(&span.1, name) - hits(&span.0, name);
        let counts = names.map(|name| format!("{name} {}", ran(name))).join(", ");
        println!("{} over {REQUESTS} reads: {counts}", path.options);
        let say = || format!("{}: {counts}\n{outcome}", path.options);
        let stats = outcome.stats.disk(&format!("d{n}"));
        // At depth 1 each request is a batch with an interrupt of its own.
        let each = REQUESTS..=REQUESTS + OTHERS;
        // A driver that is back with the next request before the I/O thread sleeps has no kick to make.
        let kicks = REQUESTS / 16..=REQUESTS + OTHERS;
        match path.ioeventfd {
            true => assert!(kicks.contains(&ran("ioeventfd_write")), "{}", say()),
            false => {
                assert_eq!(ran("ioeventfd_write"), 0, "{}", say());
                assert!(kicks.contains(&stats.sum("kicks_exit")), "{}", say());
            }
        }
        match path.irqfd {
            true => {
                assert!(each.contains(&ran("irqfd_wakeup")), "{}", say());
                // Not handed to a work item.
                assert!(each.contains(&ran("kvm_arch_set_irq_inatomic")), "{}", say());
                assert_eq!(ran("kvm_send_userspace_msi"), 0, "{}", say());
            }
            false => {
                assert!(each.contains(&ran("kvm_send_userspace_msi")), "{}", say());
                assert!(ran("irqfd_wakeup") <= OTHERS, "{}", say());
            }
        }
    }
}

fn hits(counts: &Counts, name: &str) -> u64 {
    counts.get(name).unwrap_or_else(|| panic!("this kernel has no {name}"))
}
