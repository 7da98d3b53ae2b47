use super::*;
use crate::bench::testing::report;

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
