//! Vectors that move between CPUs while they fire.

use super::guest::{Guest, device};
use super::{FIND, FIO};

#[test]
fn a_network_card_s_vectors_move_between_cpus_while_they_fire() {
    let Some(net) = device("VIRTIO_NET") else { return };
    // Linux looks, after it moved a vector, whether the new vector's number waits in the local APIC, and then sends itself that
    // interrupt again (msi_set_affinity): it may belong to another device. So a guest that moves vectors counts more than it was
    // sent; it is asked how often it did that.
    let job = "mount -t tracefs none /sys/kernel/tracing && cd /sys/kernel/tracing || exit 7
        input=$(sed -n 's/^ *\\([0-9]*\\):.*virtio.*input.*/\\1/p' /proc/interrupts)
        echo 'p:resent apic_retrigger_irq irq=+4(%di):u32' >kprobe_events && echo \"irq == $input\" >events/kprobes/resent/filter &&
            echo 1 >events/kprobes/resent/enable || exit 8
        ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 || exit 1
        ping -A -q -c 400 -W 5 10.0.2.2 >/tmp/ping & ping=$!
        irqs=$(sed -n 's/^ *\\([0-9]*\\):.*virtio.*put.*/\\1/p' /proc/interrupts); [ -n \"$irqs\" ] || exit 2
        writes=0
        while kill -0 $ping 2>/dev/null || [ $writes -lt 2000 ]; do
            for cpu in 1 2; do
                for irq in $irqs; do echo $cpu >/proc/irq/$irq/smp_affinity || exit 3; writes=$((writes + 1)); done
            done
        done
        wait $ping || { cat /tmp/ping; exit 4; }
        ip link set eth0 down; echo resent $(grep -c resent: trace)
        cat /tmp/ping; echo writes $writes; grep virtio /proc/interrupts
        awk '/virtio.*put/ { if ($2 && $3) both++ } END { print \"both\", both + 0 }' /proc/interrupts
        awk '/virtio.*input/ { print \"input\", $2 + $3 }' /proc/interrupts";
    let run = Guest::new(job).cpus(2).arg("--vfio", &net).run();
    run.passed();
    // Each ping waits for the answer to the last, so one lost interrupt would have ended it.
    assert!(run.console.contains(" 0% packet loss"), "{}", run.console);
    assert!(run.number("writes") >= 2000);
    assert!(run.number("both") >= 1, "no vector has fired on both CPUs: {}", run.console);
    let (guest, host, resent) = (run.number("input"), run.host_count("MSI-X 1"), run.number("resent"));
    println!("host {host}, guest {guest}, sent to itself {resent}, affinity writes {}", run.number("writes"));
    assert!(guest <= host + resent, "{}", run.console);
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
