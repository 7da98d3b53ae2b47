//! A driver that asks for no interrupts: Linux's polled queues (`virtio_blk.poll_queues`).

use crate::need_machine;
use crate::support::guest::Guest;

const READS: u64 = 500;

/// The last queue is the polled one, and has no vector. Two vCPUs, because Linux keeps one queue for interrupts and takes no
/// more queues than it has CPUs.
#[test]
fn smp_a_polled_queue_has_no_interrupts() {
    need_machine!();
    let script = format!(
        "umount /out 2>/dev/null || true
        rmmod virtio_blk && insmod /modules/virtio_blk.ko poll_queues=1
        disk=$(disk_by_serial polled)
        cat /sys/block/$(basename $disk)/queue/io_poll
        fio --name=polled --filename=$disk --rw=randread --bs=4k --direct=1 --ioengine=io_uring --hipri=1 \\
            --iodepth=4 --number_ios={READS} --size=8M --minimal >/dev/null
        grep virtio /proc/interrupts"
    );
    let guest = Guest::new(script).cpus(2).argument("--poll-us").argument("100");
    let outcome = guest.disk("serial=polled,backend=mem,size=8M,queues=2").run();
    let disk = outcome.stats.disk("polled");
    assert!(disk.queue(1, "requests") >= READS, "{disk:?}");
    // Those of the driver's first life, in which the queue was not polled: it read the partition table.
    let before = READS / 50;
    let interrupts: u64 = ["irqfd", "signal_msi", "pending", "intx"]
        .map(|path| disk.queue(1, &format!("interrupts/{path}")))
        .iter()
        .sum();
    assert!(interrupts < before, "{disk:?}");
    let kicks = disk.queue(1, "kicks_ioeventfd");
    println!(
        "{} requests, no interrupt, {kicks} kicks of an I/O thread that polls 100 us",
        disk.queue(1, "requests")
    );
}
