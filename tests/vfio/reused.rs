//! A device that is used again: after its driver let go of it, after a reset, a reboot, and a VMM that was killed.

use super::guest::{Guest, device};
use super::{FIND, FIO};

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
    // Counted over all 20 of its lives: each read had an interrupt of its own.
    assert!(run.host_count("MSI-X 1") >= 20 * 20, "{}", run.host_count("MSI-X 1"));
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
fn a_vm_that_reboots_leaves_the_device_for_the_next_run() {
    let Some(nvme) = device("NVME") else { return };
    let read = format!("{FIND}; dd if=$N of=/dev/null bs=4k count=100 iflag=direct || exit 1");
    let first =
        Guest::new(&format!("{read}; echo @read >/dev/console; reboot -f")).arg("--vfio", &nvme).run();
    assert_eq!(first.code, Some(5), "a reset: {}\n{}", first.console, first.messages);
    assert!(
        first.console.contains("@read") && first.console.contains("Restarting system"),
        "{}",
        first.console
    );
    let second = Guest::new(&read).arg("--vfio", &nvme).run();
    second.passed();
    assert!(second.host_count("MSI-X 1") >= 100);
}

#[test]
fn a_machine_that_starts_again_has_the_device_again() {
    let Some(nvme) = device("NVME") else { return };
    // Tells the second machine that it is one. Not what an earlier run has left.
    let mark = format!("restart-{}", std::process::id());
    let job = format!(
        "{FIND}; dd if=$N of=/dev/null bs=4k count=100 iflag=direct || exit 1
        if dd if=$N bs=512 skip=7000 count=1 iflag=direct | grep -q {mark}; then echo @again >/dev/console; exit 0; fi
        echo {mark} | dd of=$N bs=512 seek=7000 conv=sync,fsync || exit 2
        echo @first >/dev/console; reboot -f"
    );
    let run = Guest::new(&job).arg("--vfio", &nvme).arg("--on-reset", "restart").run();
    run.passed();
    assert!(run.console.contains("@first") && run.console.contains("@again"), "{}", run.console);
    assert_eq!(run.messages.matches("starting it again").count(), 1, "{}", run.messages);
    assert!(run.host_count("MSI-X 1") >= 100, "the counts are those of the second machine");
}

#[test]
fn a_vmm_killed_in_the_middle_of_reads_leaves_the_device_for_the_next_run() {
    let Some(nvme) = device("NVME") else { return };
    let file = "--name=kept --filename=$N --size=2M --verify=crc32c";
    // Reads without end, 16 at a time: whenever the kill comes, the device is writing to RAM of a process that goes away.
    let endless = format!(
        "{FIND}; {FIO} {file} --rw=write --do_verify=0 || exit 1
        {FIO} --name=on --filename=$N --rw=randread --iodepth=16 --time_based --runtime=1000 & on=$!
        D=$(basename $N); before=$(cut -c1-9 /sys/block/$D/stat)
        while [ $(cut -c1-9 /sys/block/$D/stat) -lt $((before + 200)) ]; do kill -0 $on || exit 2; done
        echo @reading >/dev/console; wait"
    );
    for _ in 0..2 {
        Guest::new(&endless).arg("--vfio", &nvme).until("@reading").kill();
    }
    // What was written before it is there.
    let job =
        format!("{FIND}; {FIO} {file} --rw=read --verify_only --verify_fatal=1 | grep -E 'err=' || exit 1");
    let next = Guest::new(&job).arg("--vfio", &nvme).run();
    next.passed();
    assert!(next.console.contains("err= 0"), "{}", next.console);
}
