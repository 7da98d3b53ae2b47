//! `doorbell bench --guest linux` on a real guest: every row says what its path promises.
//!
//! Runs where `scripts/test machine` runs it: on a /dev/kvm with hardware behind it, or in the lab.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use doorbell::bench::{Report, Row, SCHEMA};

fn guest() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/guest"));
    std::env::var_os("DOORBELL_GUEST").map_or_else(default, PathBuf::from)
}

/// Why no Linux guest can run here.
fn missing() -> Option<String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return Some(format!("no usable /dev/kvm ({error}); the lab has one"));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !cpuinfo.split_whitespace().any(|word| word == "vmx" || word == "svm") {
        return Some("this /dev/kvm has no hardware behind it; the lab has".into());
    }
    let initrd = guest().join("initrd");
    (!initrd.exists()).then(|| format!("no {}: run guest-images/linux/build", initrd.display()))
}

fn bench(flags: &str) -> Report {
    let doorbell =
        std::env::var_os("DOORBELL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_doorbell").into(), PathBuf::from);
    let output = Command::new(doorbell)
        .args(["bench", "--guest", "linux", "--json", "-", "--guest-dir"])
        .arg(guest())
        .args(flags.split_whitespace())
        .stderr(Stdio::inherit())
        .output()
        .expect("doorbell starts");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("a report on standard output")
}

/// QEMU, for `--peer`: in the lab what scripts/test has handed in.
fn qemu() -> Result<String, &'static str> {
    match std::env::var_os("DOORBELL_PEER") {
        Some(directory) => Ok(format!("qemu={}/run", PathBuf::from(directory).display())),
        None if std::env::var_os("DOORBELL_LAB").is_none()
            && Command::new("qemu-system-x86_64").arg("--version").output().is_ok() =>
        {
            Ok("qemu".into())
        }
        None => Err("no QEMU here; scripts/test hands one into the lab, with DOORBELL_PEER"),
    }
}

#[test]
fn a_reference_vmm_takes_turns_and_has_rows_of_its_own() {
    let (missing, qemu) = (missing(), qemu());
    let qemu = match (missing, qemu) {
        (None, Ok(qemu)) => qemu,
        (Some(reason), _) => return println!("skipped: {reason}"),
        (None, Err(reason)) => return println!("skipped: {reason}"),
    };
    let report = bench(&format!(
        "--jobs rand-read-1,rand-write-8 --paths irqfd --rounds 2 --runtime 0.5 --size 16M --peer {qemu}"
    ));
    let kinds: Vec<_> = report.rows.iter().map(|row| (row.job.as_str(), row.peer.as_deref())).collect();
    let wanted = ["rand-read-1", "rand-write-8"].map(|job| [(job, None), (job, Some("qemu"))]);
    assert_eq!(kinds, wanted.concat());
    assert!(report.run.peer.as_deref().is_some_and(|version| version.starts_with("QEMU")));
    for row in report.rows.iter().filter(|row| row.peer.is_some()) {
        assert_eq!(row.not_here, None);
        assert!(row.round_iops.len() == 2 && row.round_iops.iter().all(|iops| iops.is_some_and(|n| n > 0.0)));
        assert!(row.ratio.is_some() && row.verdict.is_some(), "paired with ours: {row:?}");
        let requests = some(row.requests);
        assert!(requests > 0 && (1..=requests).contains(&some(row.guest_interrupts)), "{row:?}");
        // Root may read them; each request's kick and interrupt are some.
        assert!(row.exits.is_none_or(|exits| exits > 0), "{row:?}");
        assert_eq!((row.interrupts, row.kicks_ioeventfd, row.exits_to_user), (None, None, None));
    }
}

fn some(value: Option<u64>) -> u64 {
    value.expect("measured on every host that runs this")
}

fn row<'a>(report: &'a Report, notify: &str, complete: &str) -> &'a Row {
    let is = |row: &&Row| (row.notify.as_deref(), row.complete.as_deref()) == (Some(notify), Some(complete));
    report.rows.iter().find(is).expect("one row per path")
}

#[test]
fn every_row_counts_what_its_path_does() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let paths = "irqfd,signal-msi,exit+irqfd,pio+signal-msi";
    let report =
        bench(&format!("--jobs rand-rw-8 --paths {paths} --rounds 2 --runtime 0.5 --size 16M --backend mem"));
    assert_eq!((report.schema.as_str(), report.rows.len(), report.run.rounds), (SCHEMA, 4, 2));
    assert!(report.run.guest_kernel.is_some() && report.run.fio.is_some());
    for row in &report.rows {
        assert_eq!((row.guest.as_str(), row.job.as_str(), row.depth), ("linux", "rand-rw-8", Some(8)));
        assert!(row.round_iops.len() == 2 && row.round_iops.iter().all(|iops| iops.is_some_and(|n| n > 0.0)));
        assert!(
            row.round_p50_ns.len() == 2 && row.round_p50_ns.iter().all(|p50| p50.is_some_and(|n| n > 0.0))
        );
        // Percentiles that too few requests stand behind are left out, the highest first.
        let percentiles = [row.min_ns, row.p50_ns, row.p90_ns, row.p99_ns, row.p999_ns];
        let known: Vec<_> = percentiles.into_iter().map_while(|value| value).collect();
        assert!(known.len() >= 2 && known.is_sorted(), "{row:?}");
        assert_eq!(known.len(), percentiles.iter().flatten().count(), "{row:?}");
        let (requests, interrupts) = (some(row.requests), some(row.interrupts));
        assert!(requests > 0 && interrupts > 0 && interrupts <= requests, "{row:?}");
        // The guest may find two messages in one interrupt, but none that was not sent.
        assert!((1..=interrupts).contains(&some(row.guest_interrupts)), "{row:?}");
        assert_eq!(some(row.interrupts_irqfd) + some(row.interrupts_signal_msi), interrupts);
        let kicks = some(row.kicks_ioeventfd) + some(row.kicks_exit);
        assert!(kicks > 0 && kicks <= requests && row.kicks_missed == Some(0), "{row:?}");
        assert!(some(row.exits) >= kicks && some(row.iothread_syscalls) > 0, "{row:?}");
        // A kernel in trouble may print, a store to the VMM per byte: not fewer, but more.
        assert!(some(row.exits) >= some(row.exits_to_user) && row.exits_to_user >= row.kicks_exit, "{row:?}");
    }
    // The first is what the others are compared with; two rounds show nothing.
    assert_eq!((report.rows[0].ratio, &report.rows[0].verdict), (None, &None));
    for row in &report.rows[1..] {
        assert!(row.ratio.is_some() && row.ratio_low.is_none() && row.ratio_of.as_deref() == Some("iops"));
        assert_eq!(row.verdict.as_deref(), Some("too few rounds: 2, and 3 comparisons need 8"));
    }
    for (notify, complete) in [("fast-mmio", "irqfd"), ("exit", "irqfd")] {
        assert_eq!(row(&report, notify, complete).interrupts_signal_msi, Some(0));
    }
    for (notify, complete) in [("fast-mmio", "signal-msi"), ("pio", "signal-msi")] {
        let row = row(&report, notify, complete);
        assert_eq!((row.interrupts_irqfd, row.kicks_exit), (Some(0), Some(0)));
    }
    assert_eq!(row(&report, "exit", "irqfd").kicks_ioeventfd, Some(0));
}
