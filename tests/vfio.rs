//! VFIO proved with stock Linux guests on devices that nobody here wrote: an NVMe disk and a virtio network card.
//!
//! Each test wants a device that is with vfio-pci, named in the environment as the lab does it: `DOORBELL_LAB_NVME` and
//! `DOORBELL_LAB_VIRTIO_NET`, PCI addresses. **The NVMe disk is overwritten.** In the lab:
//!
//!     scripts/lab --cpus 1 --device nvme --device virtio-net --cargo-runner -- <test program>
//!
//! One CPU, because two vCPUs on two emulated ones are not reliable (docs/lab.md). Without the devices a test says so.

#[path = "vfio/bench.rs"]
mod bench;
#[path = "vfio/guest.rs"]
mod guest;
#[path = "vfio/newer.rs"]
mod newer;

use doorbell::observe::kernel::KernelEvidence;
use guest::{Guest, device};

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
        {FIO} --name=sixteen --filename=$N --rw=randread --number_ios=4000 --iodepth=16 | grep IOPS || exit 1
        {FIO} --name=check --filename=$N --rw=randwrite --size=8M --iodepth=16 --verify=crc32c --verify_fatal=1 | grep -E 'err=|IOPS' || exit 2
        wait $beside || exit 3; echo beside: done
        sed -n 's/^ *[0-9]*: *\\([0-9]*\\) .*nvme0q1$/q1 \\1/p' /proc/interrupts"
    );
    let disk_option = format!("path={},serial=beside", disk.path().display());
    let run = Guest::new(&job).arg("--disk", &disk_option).arg("--vfio", &nvme).run();
    run.passed();
    assert!(run.console.contains("beside: done") && run.console.contains("err= 0"), "{}", run.console);
    agree(run.number("q1"), run.host_count("MSI-X 1"));
    assert_eq!(run.through_vmm("MSI-X 1"), 0);
}

/// The host handles each interrupt (nothing is posted in the lab), and the guest gets each, but one that comes while the last is
/// still waiting in the guest's local APIC, or while the vector is masked, falls together with it.
fn agree(guest: u64, host: u64) {
    assert!(guest <= host, "the guest has had {guest} interrupts, the host only {host}");
    assert!(host - guest <= host / 10, "of {host} interrupts the guest has had only {guest}");
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
    // One at a time: none can fall together with another.
    assert_eq!(run.number("q1"), run.host_count("MSI-X 1"));
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

#[test]
fn the_guest_unbinds_and_rebinds_its_driver_twenty_times() {
    let Some(nvme) = device("NVME") else { return };
    let job = format!(
        "{FIND}; D=$(basename $(readlink -f /sys/bus/pci/drivers/nvme/0000:*))
        for i in $(seq 20); do
            echo $D >/sys/bus/pci/drivers/nvme/unbind || exit 2
            echo $D >/sys/bus/pci/drivers/nvme/bind || exit 3
            {FIND}; dd if=$N of=/dev/null bs=4k count=20 iflag=direct 2>/dev/null || exit 4
            echo times $i
        done"
    );
    let run = Guest::new(&job).arg("--vfio", &nvme).run();
    run.passed();
    assert!(run.console.contains("times 20"), "{}", run.console);
}

#[test]
fn a_guest_made_function_reset_leaves_a_working_device() {
    let Some(nvme) = device("NVME") else { return };
    let job = format!(
        "{FIND}; D=$(readlink -f /sys/bus/pci/drivers/nvme/0000:*)
        cat $D/reset_method
        for i in 1 2 3; do
            echo 1 >$D/reset || exit 2
            dd if=$N of=/dev/null bs=4k count=50 iflag=direct 2>/dev/null || exit 3
            echo reset $i
        done"
    );
    let run = Guest::new(&job).arg("--vfio", &nvme).run();
    run.passed();
    assert!(run.console.contains("flr") && run.console.contains("reset 3"), "{}", run.console);
}

#[test]
fn a_guest_without_message_interrupts_gets_the_level_line() {
    let Some(nvme) = device("NVME") else { return };
    let job = format!(
        "{FIND}; {FIO} --name=one --filename=$N --rw=randread --number_ios=500 --iodepth=4 | grep IOPS || exit 1
        grep nvme /proc/interrupts"
    );
    for path in ["kernel", "user"] {
        let spec = format!("{nvme},irq={path}");
        let run = Guest::new(&job).cmdline("pci=nomsi").arg("--vfio", &spec).run();
        run.passed();
        assert!(run.console.contains("IO-APIC") && !run.console.contains("PCI-MSI"), "{}", run.console);
        let (host, through) = (run.host_count("INTx"), run.through_vmm("INTx"));
        assert!(host >= 100, "{host} interrupts");
        assert_eq!(through > 0, path == "user");
    }
}

#[test]
fn a_reboot_and_a_killed_vmm_leave_the_device_for_the_next_run() {
    let Some(nvme) = device("NVME") else { return };
    let read = format!("{FIND}; dd if=$N of=/dev/null bs=4k count=100 iflag=direct || exit 1");
    Guest::new(&format!("{read}; reboot -f")).arg("--vfio", &nvme).run().ended_well();
    // Killed in the middle of its reads.
    Guest::new(&format!("{FIND}; echo begun; dd if=$N of=/dev/null bs=4k iflag=direct"))
        .arg("--vfio", &nvme)
        .kill_at("begun");
    Guest::new(&read).arg("--vfio", &nvme).run().passed();
}

#[test]
fn a_network_card_s_vectors_move_between_cpus_while_they_fire() {
    let Some(net) = device("VIRTIO_NET") else { return };
    let job = "ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 || exit 1
        ping -A -q -c 1500 -W 5 10.0.2.2 >/tmp/ping & ping=$!
        irqs=$(sed -n 's/^ *\\([0-9]*\\):.*virtio.*put.*/\\1/p' /proc/interrupts); [ -n \"$irqs\" ] || exit 2
        writes=0
        while kill -0 $ping 2>/dev/null || [ $writes -lt 2000 ]; do
            for cpu in 1 2; do
                for irq in $irqs; do echo $cpu >/proc/irq/$irq/smp_affinity || exit 3; writes=$((writes + 1)); done
            done
        done
        wait $ping || { cat /tmp/ping; exit 4; }
        cat /tmp/ping; echo writes $writes; grep virtio /proc/interrupts
        awk '/virtio.*put/ { if ($2 && $3) both++ } END { print \"both\", both + 0 }' /proc/interrupts
        awk '/virtio.*input/ { print \"input\", $2 + $3 }' /proc/interrupts";
    let run = Guest::new(job).cpus(2).arg("--vfio", &net).run();
    run.passed();
    assert!(run.console.contains(" 0% packet loss"), "{}", run.console);
    assert!(run.number("writes") >= 2000);
    assert!(run.number("both") >= 1, "no vector has fired on both CPUs: {}", run.console);
    // Each ping waits for the answer to the last, so one lost interrupt would have ended it. The counts may differ by a
    // few: a guest that moves a vector counts some interrupts twice. (With irq=user too, where each message that is sent is
    // counted; with no moves the counts are equal.)
    let (guest, host) = (run.number("input"), run.host_count("MSI-X 1"));
    println!("host {host}, guest {guest}, affinity writes {}", run.number("writes"));
    assert!(guest.abs_diff(host) <= host / 10, "{}", run.console);
}

#[test]
fn managed_vectors_move_when_their_cpu_goes_offline() {
    let Some(nvme) = device("NVME") else { return };
    let job = format!(
        "{FIND}; {FIO} --name=long --filename=$N --rw=randread --number_ios=6000 --iodepth=8 >/tmp/fio & fio=$!
        turns=0
        while kill -0 $fio 2>/dev/null; do
            echo 0 >/sys/devices/system/cpu/cpu1/online && echo 1 >/sys/devices/system/cpu/cpu1/online || exit 2
            turns=$((turns + 1))
        done
        wait $fio || exit 3
        grep -E 'IOPS|err=' /tmp/fio; echo turns $turns"
    );
    let run = Guest::new(&job).cpus(2).arg("--vfio", &nvme).run();
    run.passed();
    assert!(run.console.contains("err= 0"), "{}", run.console);
    assert!(run.number("turns") >= 3, "{}", run.console);
}
