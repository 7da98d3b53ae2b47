//! `doorbell bench --guest linux --vfio`: the passed-through disk in the same report as the virtio paths.

use std::process::Stdio;

use doorbell::bench::{Report, Row};

use super::device;
use super::guest::{doorbell, image};

/// The rows of our disk and of the passed-through one, from one guest.
fn bench(nvme: &str, irq: &str) -> (Row, Row) {
    let output = doorbell()
        .args(["bench", "--guest", "linux", "--json", "-", "--guest-dir"])
        .arg(image())
        .args(["--vfio", &format!("{nvme},irq={irq}"), "--paths", irq_path(irq), "--jobs", "rand-read-1"])
        .args(["--rounds", "2", "--runtime", "0.5", "--size", "16M", "--backend", "mem"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    let [ours, passed] = &report.rows[..] else { panic!("two rows: {:?}", report.rows) };
    (ours.clone(), passed.clone())
}

/// The complete path in which a device's interrupt ends.
fn irq_path(irq: &str) -> &'static str {
    if irq == "kernel" { "irqfd" } else { "signal-msi" }
}

#[test]
fn a_passed_through_disk_is_a_row_of_the_bench() {
    let Some(nvme) = device("NVME") else { return };
    for irq in ["kernel", "user"] {
        let (ours, passed) = bench(&nvme, irq);
        assert_eq!((ours.backend.as_deref(), ours.device), (Some("mem"), None));
        assert_eq!(ours.complete, passed.complete);
        assert_eq!(passed.complete.as_deref(), Some(irq_path(irq)));
        assert_eq!((passed.backend.as_deref(), passed.device.as_deref()), (Some("vfio"), Some(&*nvme)));
        // Measured in turn with ours, by the same fio.
        assert!(passed.round_iops.len() == 2 && passed.ratio.is_some() && passed.p50_ns.is_some());
        let some = |value: Option<u64>| value.expect("measured");
        let (requests, host) = (some(passed.requests), some(passed.interrupts));
        // One at a time: each has an interrupt of its own, in the host and in the guest.
        assert!(requests > 0 && host >= requests && host <= requests + requests / 10 + 8, "{passed:?}");
        assert!(some(passed.guest_interrupts).abs_diff(host) <= host / 10 + 8, "{passed:?}");
        let (irqfd, signal_msi) = (some(passed.interrupts_irqfd), some(passed.interrupts_signal_msi));
        if irq == "kernel" {
            assert_eq!((irqfd, signal_msi), (host, 0));
        } else {
            assert!(irqfd == 0 && (requests..=host).contains(&signal_msi), "{passed:?}");
        }
        // A doorbell of the device is a page of its own in the guest: nobody sees a store to it.
        assert!(some(passed.exits_to_user) < requests, "{passed:?}");
        assert_eq!((passed.kicks_ioeventfd, passed.kicks_exit, passed.iothread_syscalls), (None, None, None));
    }
}
