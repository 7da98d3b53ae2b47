use super::*;
use crate::bench::testing::report;

fn render(report: &Report) -> String {
    super::render(report, Look { wide: true, bold: false })
}

#[test]
fn a_table_has_a_line_per_row_and_names_what_differs() {
    let text = render(&report());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("notify fast-mmio") && lines[0].contains("3 rounds of 2 s"), "{text}");
    let rows: Vec<_> = lines.iter().filter(|l| l.contains("irqfd") || l.contains("signal-msi")).collect();
    assert!(rows.len() >= 4, "{text}");
    assert!(rows[0].trim_start().starts_with("rand-read-1 "), "{text}");
    assert!(rows[1].trim_start().starts_with("signal-msi"), "the job's name stands once\n{text}");
    assert!(rows[1].contains(" 0.995 "), "{text}");
    assert!(
        text.contains("  fast-mmio + signal-msi, io_uring: too few rounds: 2, and 2 comparisons need 8\n"),
        "{text}"
    );
    assert!(!text.contains("backend  ") && text.contains("backend io_uring"), "{text}");
    assert!(!text.contains("interrupt us") && !text.contains("floor"), "nobody measured these\n{text}");
}

#[test]
fn an_unmeasured_value_is_a_dash_not_a_zero() {
    let mut report = report();
    report.rows.truncate(1);
    let text = render(&report);
    let row = text.lines().rfind(|l| l.starts_with(" rand-read-1")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    // Exits and system calls of the sample are unknown, kicks by exit are none.
    assert_eq!(cells[cells.len() - 4..], ["0.00", "-", "-", "-"], "{text}");
}

#[test]
fn a_passed_through_disk_adds_columns_for_what_it_is_and_none_for_what_it_has_not() {
    let mut report = report();
    let ours = &mut report.rows[0];
    (ours.wait, ours.poll_us) = (Some("blocking".into()), Some(0));
    let ours = ours.clone();
    let (backend, device) = (Some("vfio".into()), Some("0000:01:00.0".into()));
    let (guest, job, complete) = (ours.guest.clone(), ours.job.clone(), ours.complete.clone());
    let passed = Row { guest, job, complete, backend, device, ..Row::default() };
    report.rows = vec![ours, passed];
    let text = render(&report);
    let heading = text.lines().find(|line| line.trim_start().starts_with("job ")).unwrap();
    let words: Vec<_> = heading.split_whitespace().take(5).collect();
    assert_eq!(words, ["job", "notify", "backend", "device", "IOPS"], "{text}");
}

#[test]
fn a_reference_vmm_adds_the_interrupts_that_guests_have_taken() {
    let mut report = report();
    report.rows[0].guest_interrupts = Some(5);
    assert!(!render(&report).contains("taken/req"));
    let ours = &report.rows[0];
    let peer = Row {
        peer: Some("qemu".into()),
        requests: Some(100),
        guest_interrupts: Some(37),
        interrupts: None,
        ..ours.clone()
    };
    report.rows.push(peer);
    let text = render(&report);
    assert!(text.contains("taken/req") && text.contains(" 0.37 "), "{text}");
}

#[test]
fn implausible_values_are_reported() {
    let mut report = report();
    assert!(render(&report).contains("rand-read-1 on fast-mmio+signal-msi: 1 of 3 rounds were lost"));
    // The sample's IOPS and mean latency are of different runs.
    assert!(
        render(&report).contains(
            "rand-read-1 on fast-mmio+irqfd: IOPS x mean latency is 0.03 requests in flight, not 1"
        )
    );
    report.rows[0].kicks_missed = Some(2);
    assert!(render(&report).contains("2 kicks came by exit that an ioeventfd should have caught"));
}

#[test]
fn numbers_are_easy_to_read() {
    assert_eq!(grouped(0.4), "0");
    assert_eq!(grouped(999.0), "999");
    assert_eq!(grouped(1_234_567.0), "1,234,567");
    assert_eq!(micros(Some(1_500.0)), "1.5");
    assert_eq!(micros(Some(1_234_000.0)), "1,234");
    assert_eq!(micros(None), "-");
    assert_eq!(two(Some(2.0)), "2.00");
}

#[test]
fn an_empty_report_does_not_panic() {
    let mut report = report();
    report.rows.clear();
    assert!(render(&report).contains("host:"));
}

/// Rows as the probe's, with the longest names that there are.
fn probe_report() -> Report {
    let mut report = report();
    let first = Row {
        guest: "probe".into(),
        job: "read-512-32-one-by-one".into(),
        notify: Some("fast-mmio".into()),
        complete: Some("irqfd".into()),
        backend: Some("null,delay=80us".into()),
        moderate: Some("auto".into()),
        poll_us: Some(0),
        iops: Some(1_234_567.0),
        ratio: Some(1.234),
        ratio_low: Some(1.111),
        ratio_high: Some(1.345),
        min_ns: Some(1_000),
        mean_ns: Some(1_000_000.0),
        p99_ns: Some(9_999_000),
        kick_p50_ns: Some(99_900),
        interrupt_p50_ns: Some(99_900),
        floor_ratio: Some(1.0),
        requests: Some(1_000_000),
        interrupts: Some(10_000),
        exits: Some(3_000_000),
        exits_to_user: Some(100),
        kicks_ioeventfd: Some(1_000_000),
        kicks_exit: Some(20),
        iothread_syscalls: Some(2_000_000),
        io_thread_cpu_ns_per_request: Some(12_340.0),
        ..report.rows[0].clone()
    };
    let verdict = Some("1.23 x faster (1.11 to 1.35)".to_string());
    let second = Row {
        notify: Some("mmio".into()),
        complete: Some("signal-msi".into()),
        backend: Some("null".into()),
        moderate: Some("off".into()),
        ratio_of: Some("iops".into()),
        verdict,
        ..first.clone()
    };
    report.rows = vec![first, second];
    report
}

#[test]
fn lines_have_about_100_characters_unless_all_is_asked_for() {
    let look = |wide| super::render(&probe_report(), Look { wide, bold: false });
    let of_tables = |text: &str| {
        text.lines().skip(1).take_while(|l| !l.contains("against")).map(|l| l.chars().count()).max()
    };
    let (narrow, wide) = (look(false), look(true));
    assert!(of_tables(&narrow) <= Some(110), "{narrow}");
    assert!(of_tables(&wide) > Some(150), "{wide}");
    assert!(
        narrow.contains("\nread-512-32-one-by-one")
            && !wide.contains("fast-mmio+irqfd null,delay=80us moderated"),
        "{wide}"
    );
    assert!(narrow.contains("  fast-mmio+irqfd null,delay=80us moderated "), "{narrow}");
    assert!(!narrow.contains("mean us") && wide.contains("mean us"), "{narrow}");
}

#[test]
fn only_a_verdict_that_tells_rows_apart_is_bold_and_only_if_asked_for() {
    let mut report = probe_report();
    let bold = |report: &Report| super::render(report, Look { wide: false, bold: true });
    assert!(bold(&report).contains(": \x1b[1m1.23 x faster (1.11 to 1.35)\x1b[0m"), "{}", bold(&report));
    assert!(!super::render(&report, Look::default()).contains('\x1b'));
    report.rows[1].verdict =
        Some("no difference shown (1.01, 95 % 0.98 to 1.04); a difference of 5 % would have shown".into());
    assert!(!bold(&report).contains('\x1b'));
}
