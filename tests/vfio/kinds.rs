//! Guests that use MSI, or the level line.

use super::guest::{Guest, Run, device};
use super::{FIND, FIO};

/// Before the tests that kill a VMM (tests run in order of name, and theirs are in `refused` and `reused`): QEMU's NVMe model
/// counts queues with unseen completions, does not start that count again at a reset, and leaves its pin up for good while the
/// count is not 0. With message interrupts nobody sees that.
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

/// A guest whose kernel has a driver for the SATA controller reads its disk, and writes and verifies it; then its own account
/// of the controller's interrupts, and of the kind that its kernel has switched on.
fn sata(path: &str, cmdline: &str) -> Option<Run> {
    let controller = device("AHCI")?;
    let Some(image) = std::env::var_os("DOORBELL_GUEST_ORDINARY") else {
        println!(
            "skipped: DOORBELL_GUEST_ORDINARY is not set (guest-images/linux/build --flavour ordinary makes it)"
        );
        return None;
    };
    let job = format!(
        "for i in $(seq 200); do [ -b /dev/sda ] && break; sleep 0.1; done; D=$(readlink -f /sys/block/sda/device)
        {FIO} --name=one --filename=/dev/sda --rw=randread --number_ios=500 --iodepth=1 | grep IOPS || exit 1
        {FIO} --name=check --filename=/dev/sda --rw=randwrite --size=2M --iodepth=8 --verify=crc32c --verify_fatal=1 |
            grep -E 'err=' || exit 2
        grep ahci /proc/interrupts; cat ${{D%%/ata*}}/msi_irqs/* 2>/dev/null
        sed -n 's/^ *[0-9]*: *\\([0-9]*\\) .*ahci.*/sata \\1/p' /proc/interrupts"
    );
    let spec = format!("{controller},irq={path}");
    let run = Guest::new_in(image.into(), &job).cmdline(cmdline).arg("--vfio", &spec).run();
    run.passed();
    assert!(run.console.contains("err= 0"), "{}", run.console);
    Some(run)
}

#[test]
fn a_device_with_msi_and_no_msix_gets_msi() {
    for path in ["kernel", "user"] {
        let Some(run) = sata(path, "") else { return };
        let kind = run.console.lines().find(|line| line.trim() == "msi");
        assert!(run.console.contains("PCI-MSI") && kind.is_some(), "{}", run.console);
        let (guest, host, through) = (run.number("sata"), run.host_count("MSI 0"), run.through_vmm("MSI 0"));
        println!("irq={path}: host's vfio-msi[0] {host}, through the VMM {through}, guest {guest}");
        assert!(guest >= 500 && guest <= host, "{}", run.console);
        assert_eq!(through > 0, path == "user");
    }
}

#[test]
fn the_same_device_without_msi_gets_the_level_line() {
    for path in ["kernel", "user"] {
        let Some(run) = sata(path, "pci=nomsi") else { return };
        assert!(run.console.contains("IO-APIC") && !run.console.contains("PCI-MSI"), "{}", run.console);
        let (guest, host, through) = (run.number("sata"), run.host_count("INTx"), run.through_vmm("INTx"));
        println!("irq={path}: host's vfio-intx {host}, through the VMM {through}, guest {guest}");
        assert!(guest >= 500 && host >= 500, "{}", run.console);
        assert_eq!(through > 0, path == "user");
    }
}
