//! VFIO proved with stock Linux guests on devices that nobody here wrote: an NVMe disk, a SATA controller that has MSI and no
//! MSI-X, and a virtio network card.
//!
//! Each test wants a device that is with vfio-pci, named in the environment as the lab does it: `DOORBELL_LAB_NVME`,
//! `DOORBELL_LAB_AHCI` and so on, PCI addresses. **The NVMe disk is overwritten.** `scripts/test vfio` starts a lab with all
//! of them. One CPU, because two vCPUs on two emulated ones are not reliable (docs/lab.md). Without the devices a test says so.

#[path = "vfio/bench.rs"]
mod bench;
#[path = "vfio/guest.rs"]
mod guest;
#[path = "vfio/kinds.rs"]
mod kinds;
#[path = "vfio/messages.rs"]
mod messages;
#[path = "vfio/moves.rs"]
mod moves;
#[path = "vfio/newer.rs"]
mod newer;
#[path = "common/refusal.rs"]
mod refusal;
#[path = "vfio/refused.rs"]
mod refused;
#[path = "vfio/reused.rs"]
mod reused;

use doorbell::observe::kernel::KernelEvidence;
use guest::{Guest, device};
use messages::Messages;

/// fio on `DISK` with these options; the last word on its console is fio's.
const FIO: &str = "fio --eta=never --ioengine=libaio --direct=1 --bs=4k --norandommap=1";

/// Waits for the disk and leaves it in `N`.
const FIND: &str = "N=$(disk_by_serial lab-nvme 20) || exit 9";

#[test]
fn nvme_reads_writes_and_verifies_beside_a_virtio_disk_that_is_busy_too() {
    let Some(nvme) = device("NVME") else { return };
    let disk = guest::scratch_disk(32 << 20);
    let job = format!(
        "{FIND}; V=$(disk_by_serial beside) || exit 9
        {FIO} --name=beside --filename=$V --rw=randrw --number_ios=1500 --iodepth=4 >/tmp/beside & beside=$!
        {FIO} --name=one --filename=$N --rw=randread --number_ios=1000 --iodepth=1 | grep IOPS || exit 1
        {FIO} --name=sixteen --filename=$N --rw=randread --number_ios=2000 --iodepth=16 | grep IOPS || exit 1
        {FIO} --name=check --filename=$N --rw=randwrite --size=4M --iodepth=16 --verify=crc32c --verify_fatal=1 | grep -E 'err=|IOPS' || exit 2
        wait $beside || exit 3; echo beside: done
        sed -n 's/^ *[0-9]*: *\\([0-9]*\\) .*nvme0q1$/q1 \\1/p' /proc/interrupts"
    );
    let disk_option = format!("path={},serial=beside", disk.path().display());
    let kvm = Messages::start();
    let run = Guest::new(&job).arg("--disk", &disk_option).arg("--vfio", &nvme).run();
    run.passed();
    assert!(run.console.contains("beside: done") && run.console.contains("err= 0"), "{}", run.console);
    assert_eq!(run.through_vmm("MSI-X 1"), 0);
    let (guest, host) = (run.number("q1"), run.host_count("MSI-X 1"));
    // The host handles each interrupt (nothing is posted in the lab). What the guest has fewer fell together in its local APIC.
    assert!(guest <= host, "the guest has had {guest} interrupts, the host only {host}");
    if let Some(kvm) = kvm {
        let (given, injected) = (kvm.given(), kvm.injected());
        // By vector number: the disk's queue has the most. (The admin queue has that number before the queue has it, and none of
        // its interrupts come together: it adds the same to both.)
        let (vector, messages) = given.iter().max_by_key(|(_, count)| **count).unwrap();
        println!("host {host}, messages {messages}, injected {}, guest {guest}", injected[vector]);
        assert_eq!(host - guest, messages - injected[vector], "{given:?}, {injected:?}");
    }
}

/// The kernel's own words for the two ways of an interrupt.
const WITNESSES: [&str; 5] = [
    "vfio_msihandler",
    "irqfd_wakeup",
    "kvm_send_userspace_msi",
    "irq_bypass_register_producer",
    "irq_bypass_register_consumer",
];

/// Reads 2,000 blocks with `irq=PATH`; the hits of each of [`WITNESSES`], then the interrupts that the guest's queue had.
fn witnessed(nvme: &str, path: &str) -> Option<([u64; 5], u64)> {
    let evidence = match KernelEvidence::start(&WITNESSES) {
        Ok(evidence) => evidence,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let job = format!(
        "{FIND}; {FIO} --name=one --filename=$N --rw=randread --number_ios=2000 --iodepth=1 | grep IOPS || exit 1
        sed -n 's/^ *[0-9]*: *\\([0-9]*\\) .*nvme0q1$/q1 \\1/p' /proc/interrupts"
    );
    let run = Guest::new(&job).arg("--vfio", &format!("{nvme},irq={path}")).run();
    run.passed();
    let counts = evidence.stop().unwrap();
    let hits = WITNESSES.map(|name| counts.get(name).unwrap_or(0));
    println!(
        "irq={path}: {:?}, guest's queue {}",
        WITNESSES.iter().zip(hits).collect::<Vec<_>>(),
        run.number("q1")
    );
    // One at a time: none can fall together with another. The queue's number was the admin queue's before Linux gave each its own,
    // and a late interrupt of that time may count for the queue.
    let more = run.number("q1").checked_sub(run.host_count("MSI-X 1"));
    assert!(more.is_some_and(|more| more <= 1), "the guest has had {more:?} more than the host");
    Some((hits, run.number("q1")))
}

#[test]
fn with_irq_kernel_the_host_s_handler_wakes_the_irqfd_and_nobody_signals() {
    let Some(nvme) = device("NVME") else { return };
    let Some(([handler, irqfd, signal, producers, _], queue)) = witnessed(&nvme, "kernel") else { return };
    assert!(queue >= 2000 && handler >= queue);
    // Each interrupt that came while its vector was unmasked; the few others were pending.
    assert!(irqfd >= queue && irqfd <= handler + 32, "{irqfd} of {handler}");
    assert_eq!(signal, 0);
    assert!(producers > 0, "VFIO offers each vector for bypass");
}

#[test]
fn with_irq_user_the_vmm_signals_and_no_irqfd_is_hit() {
    let Some(nvme) = device("NVME") else { return };
    let Some(([handler, irqfd, signal, ..], queue)) = witnessed(&nvme, "user") else { return };
    assert!(queue >= 2000 && handler >= queue);
    assert_eq!(irqfd, 0);
    assert!(signal >= queue && signal <= handler, "{signal} of {handler}");
}
