use super::super::counts::Counts;
use super::super::marker::{BEGIN, END, EXITS_PER_MARK, Mark};
use super::super::sample::disk_interrupts;
use super::*;
use crate::bench::PathPair;
use crate::dataplane::{CompletePath, Moderation};
use crate::virtio::NotifyPath;

const INTERRUPTS: &str = "           CPU0       CPU1
  1:          9          0   IO-APIC   4-edge      ttyS0
 24:          0          5   PCI-MSI 16384-edge      virtio0-config
 25:         40          2   PCI-MSI 16385-edge      virtio0-req.0
 26:          0          7   PCI-MSI 16386-edge      virtio0-req.1
 27:        100          0   PCI-MSI 32769-edge      virtio01-req.0
 28:        300          0   IO-APIC  20-fasteoi   virtio2, virtio3
LOC:       1000       1000   Local timer interrupts
";

#[test]
fn a_disks_interrupts_are_those_of_its_queues() {
    assert_eq!(disk_interrupts(INTERRUPTS, "virtio0"), 49);
    assert_eq!(disk_interrupts(INTERRUPTS, "virtio3"), 300);
    assert_eq!(disk_interrupts(INTERRUPTS, "virtio9"), 0);
    assert_eq!(disk_interrupts("", "virtio0"), 0);
}

fn schedule(rounds: usize) -> Schedule<FioJob, Variant> {
    let path = |complete| Variant::Disk(PathPair { notify: NotifyPath::FastMmio, complete }, Moderation::Off);
    let paths = vec![path(CompletePath::Irqfd), path(CompletePath::SignalMsi)];
    Schedule { jobs: vec!["rand-read-4".parse().unwrap()], paths, rounds }
}

fn fio_json(ios: u64) -> String {
    format!(
        r#"{{"fio version": "fio-3.33", "jobs": [{{"error": 0,
            "read": {{"total_ios": {ios}, "runtime": 1000,
                "lat_ns": {{"min": 10, "mean": 20.0, "N": {ios}, "bins": {{"19": {ios}}}}}}},
            "write": {{"total_ios": 0, "runtime": 0, "lat_ns": {{"min": 0, "mean": 0.0, "N": 0}}}}}}]}}"#
    )
}

/// The marks of a guest that completes `ios` requests on its disk in each step.
fn marks(schedule: &Schedule<FioJob, Variant>, ios: u64) -> Vec<Mark> {
    let mut counts = vec![Counts { kicks_ioeventfd: Some(1), ..Counts::default() }; 2];
    let mut marks = Vec::new();
    for (number, step) in schedule.steps().iter().enumerate() {
        let mut mark = |counts: &[Counts], what| {
            marks.push(Mark { step: number as u16, what, at_ns: 0, counts: counts.to_vec() })
        };
        mark(&counts, BEGIN);
        let this = &mut counts[step.path];
        this.disk.requests += ios;
        *if step.path == 0 { &mut this.disk.irqfd } else { &mut this.disk.signal_msi } += ios / 2;
        this.disk.kicks_exit += 1;
        this.kicks_ioeventfd = Some(this.kicks_ioeventfd.unwrap() + ios);
        for disk in &mut counts {
            disk.exits_to_user += 1 + EXITS_PER_MARK;
        }
        mark(&counts, END);
    }
    marks
}

#[test]
fn rows_are_sums_over_the_rounds_and_ratios_within_them() {
    let schedule = schedule(2);
    // Steps in order: round 0 irqfd, signal-msi; round 1 signal-msi, irqfd.
    let ios = [100, 80, 240, 200];
    let outputs = ios.map(fio_json);
    let mut files: Vec<(String, &[u8])> =
        outputs.iter().enumerate().map(|(n, json)| (format!("{n}.json"), json.as_bytes())).collect();
    let later = INTERRUPTS.replace("         40 ", "         90 ");
    files.extend([
        ("bench0".into(), &b"virtio0\n"[..]),
        ("bench1".into(), &b"virtio1\n"[..]),
        ("0.before".into(), INTERRUPTS.as_bytes()),
        ("0.after".into(), later.as_bytes()),
        ("3.before".into(), later.as_bytes()),
        ("3.after".into(), later.as_bytes()),
    ]);
    let results = Results::new(files);
    let common = Row { guest: "linux".into(), queues: Some(1), ..Row::default() };
    let (rows, rounds) =
        rows(&schedule, &results, &marks(&schedule, 50), Done::default(), &common, BackendKind::Sync)
            .unwrap();
    assert_eq!(rounds, 2);
    assert_eq!(rows.len(), 2);
    let (irqfd, msi) = (&rows[0], &rows[1]);
    assert_eq!(irqfd.complete.as_deref(), Some("irqfd"));
    assert_eq!((irqfd.guest.as_str(), irqfd.queues, irqfd.depth), ("linux", Some(1), Some(4)));
    assert_eq!(irqfd.round_iops, [Some(100.0), Some(200.0)]);
    assert_eq!((irqfd.iops, msi.iops), (Some(150.0), Some(160.0)));
    // 0.8 and 1.2: the mean of their logarithms.
    assert!((msi.ratio.unwrap() - 0.96f64.sqrt()).abs() < 1e-6, "{:?}", msi.ratio);
    assert_eq!((msi.ratio_low, msi.ratio_of.as_deref()), (None, Some("iops")));
    assert_eq!(irqfd.round_p50_ns.len(), 2);
    assert_eq!((irqfd.mean_ns, irqfd.p50_ns, irqfd.min_ns), (Some(20.0), Some(19), Some(10)));
    assert_eq!((irqfd.requests, irqfd.interrupts, irqfd.interrupts_irqfd), (Some(100), Some(50), Some(50)));
    assert_eq!((irqfd.kicks_ioeventfd, irqfd.kicks_exit), (Some(100), Some(2)));
    assert_eq!((irqfd.exits_to_user, irqfd.exits), (Some(2), None));
    assert_eq!(irqfd.guest_interrupts, Some(50));
    assert_eq!(msi.guest_interrupts, None, "the guest left nothing to count");
    assert_eq!(fio_version(&results).as_deref(), Some("fio-3.33"));
}

#[test]
fn a_passed_through_disk_says_what_it_can_and_no_more() {
    let spec = |text: &str| Variant::Passed(text.parse().unwrap());
    let paths = vec![spec("01:00.0"), spec("02:00.0,irq=user")];
    let schedule = Schedule { paths, ..schedule(1) };
    let counts = |host, through_vmm| Counts { passed: Passed { host, through_vmm }, ..Counts::default() };
    let mut marks = Vec::new();
    for step in [0, 1] {
        marks.push(Mark { step, what: BEGIN, at_ns: 0, counts: vec![counts(1000, 10), counts(10, 9)] });
        marks.push(Mark { step, what: END, at_ns: 0, counts: vec![counts(1070, 11), counts(80, 75)] });
    }
    let json = fio_json(90);
    let later = INTERRUPTS.replace("          7 ", "         70 ");
    let files: Vec<(String, &[u8])> = vec![
        ("0.json".into(), json.as_bytes()),
        ("1.json".into(), json.as_bytes()),
        ("bench0".into(), b"irqs 25 26\n"),
        ("0.before".into(), INTERRUPTS.as_bytes()),
        ("0.after".into(), later.as_bytes()),
    ];
    let common = Row { guest: "linux".into(), queues: Some(1), ..Row::default() };
    let (rows, _) =
        rows(&schedule, &Results::new(files), &marks, Done::default(), &common, BackendKind::Sync).unwrap();
    let (kernel, user) = (&rows[0], &rows[1]);
    assert_eq!((kernel.requests, kernel.interrupts, kernel.guest_interrupts), (Some(90), Some(70), Some(63)));
    assert_eq!((kernel.interrupts_irqfd, kernel.interrupts_signal_msi), (Some(70), Some(0)));
    assert_eq!((user.interrupts_irqfd, user.interrupts_signal_msi), (Some(0), Some(66)));
    for row in &rows {
        assert_eq!((row.backend.as_deref(), row.queues, &row.notify), (Some("vfio"), None, &None));
        assert_eq!((row.kicks_ioeventfd, row.kicks_exit, row.kicks_missed), (None, None, None));
        assert_eq!((row.iothread_syscalls, row.interrupts_suppressed), (None, None));
    }
}

#[test]
fn a_step_without_a_result_is_a_lost_round_of_its_row_only() {
    let schedule = schedule(2);
    let json = fio_json(100);
    // Step 2 is signal-msi of the second round.
    let files = [0, 1, 3].map(|n| (format!("{n}.json"), json.as_bytes())).to_vec();
    let (rows, rounds) = rows(
        &schedule,
        &Results::new(files),
        &marks(&schedule, 50),
        Done::default(),
        &Row::default(),
        BackendKind::Sync,
    )
    .unwrap();
    assert_eq!((rows[0].round_iops.as_slice(), rounds), (&[Some(100.0); 2][..], 2));
    assert_eq!((rows[1].round_iops.as_slice(), rows[1].requests), (&[Some(100.0), None][..], Some(50)));
    assert_eq!((rows[1].not_here.as_ref(), rows[1].ratio), (None, Some(1.0)));
}

#[test]
fn a_round_that_was_not_finished_does_not_count_unless_it_is_the_first() {
    let schedule = schedule(2);
    let json = fio_json(100);
    let all = marks(&schedule, 50);
    let run = |steps: usize| {
        let files = (0..steps).map(|n| (format!("{n}.json"), json.as_bytes())).collect();
        rows(
            &schedule,
            &Results::new(files),
            &all[..2 * steps],
            Done::default(),
            &Row::default(),
            BackendKind::Sync,
        )
    };
    let (rows, rounds) = run(3).unwrap();
    assert_eq!((rows[1].round_iops.len(), rounds), (1, 1));
    let (rows, rounds) = run(1).unwrap();
    assert_eq!(
        (rows[0].requests, rows[1].not_here.as_deref(), rounds),
        (Some(50), Some("the guest did not reach it"), 0)
    );
    assert_eq!(run(0).unwrap_err(), "the run ended before anything was measured");
    assert_eq!(by_host(&schedule, &all, 1.0)[1].round_iops, [Some(50.0); 2]);
}
