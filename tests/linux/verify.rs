//! What is written is what is read: fio writes every block of a disk with a crc32c, in random order, and reads all of
//! them back, over every pair of options.

use crate::need_machine;
use crate::pairs::{self, Options};
use crate::support::disks::{self, DirectDisk};
use crate::support::guest::{Guest, Outcome, path};
use crate::support::stats::DiskStats;

const LEN: u64 = 8 << 20;
const BLOCK: u64 = 8 << 10;
/// VIRTIO_F_EVENT_IDX (virtio 1.2, 6).
const EVENT_IDX: usize = 29;
/// VIRTIO_F_RING_PACKED.
const RING_PACKED: usize = 34;

#[test]
fn one_vcpu_bzimage() {
    need_machine!();
    check("bzImage", 1, &pairs::disks().into_iter().filter(|d| d.get("queues") == "1").collect::<Vec<_>>());
}

#[test]
fn smp_two_vcpus_vmlinux() {
    need_machine!();
    check("vmlinux", 2, &pairs::disks().into_iter().step_by(4).collect::<Vec<_>>());
}

#[test]
fn smp_four_vcpus_bzimage() {
    need_machine!();
    check("bzImage", 4, &pairs::disks().into_iter().filter(|d| d.get("queues") == "4").collect::<Vec<_>>());
}

/// All disks in one guest, one after the other.
fn check(kernel: &'static str, cpus: u8, disks: &[Options]) {
    let files = disks::directory();
    let mut direct = Vec::new();
    let mut guest = Guest::new(script(disks.len(), cpus)).kernel(kernel).cpus(cpus).deadline(60);
    guest = guest.argument("--iothreads").argument("2").file("verify.fio", JOB);
    for (n, disk) in disks.iter().enumerate() {
        let place = match (disk.get("backend"), disk.get("direct")) {
            ("mem", _) => format!("size={LEN}"),
            (_, "on") => {
                let disk =
                    DirectDisk::new(LEN).expect("neither a file system with O_DIRECT nor a loop device here");
                let place = path(disk.path());
                direct.push(disk);
                place
            }
            _ => {
                let file = files.path().join(format!("d{n}"));
                disks::file(&file, LEN);
                path(&file)
            }
        };
        guest = guest.disk(format!("serial=d{n},{},{place}", disk.text()));
    }
    let outcome = guest.run();
    for (n, disk) in disks.iter().enumerate() {
        check_paths(disk, cpus, outcome.stats.disk(&format!("d{n}")), &outcome);
    }
    println!("{kernel}, {cpus} vCPU(s): {} disks verified", disks.len());
}

/// One writer per vCPU, each on that CPU and with a part of the disk of its own, so that every queue is used.
const JOB: &str = "\
[verify]
filename=${DISK}
ioengine=libaio
direct=1
rw=randwrite
bs=8k
iodepth=8
numjobs=${CPUS}
size=${PART}
offset_increment=${PART}
cpus_allowed=0-${LAST}
cpus_allowed_policy=split
verify=crc32c
verify_fatal=1
verify_dump=0
do_verify=1
group_reporting=1
";

fn script(disks: usize, cpus: u8) -> String {
    let part = LEN / u64::from(cpus);
    format!(
        "export CPUS={cpus} LAST={} PART={part}
        [ $(nproc) -eq {cpus} ]
        for n in $(seq 0 {}); do
            export DISK=$(disk_by_serial d$n)
            fio --output=/dev/null verify.fio
            cat /sys/block/${{DISK#/dev/}}/device/features >$OUT/features.d$n
        done
        # No warning of the kernel.
        ! dmesg | grep -E 'I/O error|blk_update_request|irq .*nobody cared|soft lockup|hung task'",
        cpus - 1,
        disks - 1
    )
}

fn check_paths(disk: &Options, cpus: u8, stats: DiskStats, outcome: &Outcome) {
    let say = || format!("{}: {}\n{outcome}", stats.serial(), disk.text());
    let blocks = LEN / BLOCK;
    // Each block at least once each way; the block layer may merge neighbours.
    assert!(stats.sum("bytes_written") >= LEN && stats.sum("bytes_read") >= LEN, "{}", say());
    assert!(stats.sum("requests") > blocks, "{}", say());
    assert_eq!(stats.sum("errors"), 0, "{}", say());
    assert!(stats.0["last_error"].is_null(), "{}", say());

    // Linux uses as many queues as it has CPUs, and never more than are offered.
    let used = (0..stats.queues()).filter(|&queue| stats.queue(queue, "requests") > 0).count();
    let offered: usize = disk.get("queues").parse().expect("a number");
    // With INTx, too: only its interrupts are one.
    assert_eq!(used, offered.min(cpus.into()), "queues used; {}", say());

    // One digit a bit, the lowest first.
    let features = outcome.text(&format!("features.{}", stats.serial()));
    assert_eq!(&features[EVENT_IDX..=EVENT_IDX] == "1", disk.get("event-idx") == "on", "{}", say());
    assert_eq!(&features[RING_PACKED..=RING_PACKED] == "1", disk.get("ring") == "packed", "{}", say());

    let exits = stats.sum("kicks_exit");
    assert_eq!(exits > 0, disk.get("notify") == "exit", "{exits} kicks by exit; {}", say());
    assert_eq!(stats.sum("kicks_missed"), 0, "{}", say());

    let expected = match (disk.get("complete"), disk.get("iothread")) {
        ("auto", "none") | ("signal-msi", _) => "signal_msi",
        ("auto", _) | ("irqfd", _) => "irqfd",
        _ => "intx",
    };
    for path in ["irqfd", "signal_msi", "intx", "refused", "no_vector"] {
        let count = stats.sum(&format!("interrupts/{path}"));
        assert_eq!(count > 0, path == expected, "{count} interrupts by {path}; {}", say());
    }
}
