use std::fs;

use super::*;
use crate::bench::testing::report;

#[test]
fn a_report_does_not_differ_from_itself() {
    let a = report();
    let diff = Diff::of(&a, &a);
    assert!(diff.facts.is_empty() && diff.only_a.is_empty() && diff.only_b.is_empty());
    assert_eq!(diff.rows.len(), a.rows.len());
    for row in &diff.rows {
        assert_eq!((row.iops_ratio, row.p50_ratio, row.p99_ratio), (Some(1.0), Some(1.0), Some(1.0)));
        assert_ne!(row.distinguishable(), Some(true));
    }
    assert!(render_diff(&diff).starts_with("same host"));
}

#[test]
fn ratios_are_b_to_a_and_rounds_tell_whether_they_mean_anything() {
    let (a, mut b) = (report(), report());
    // A's rounds are 1000, 2000, 4000.
    b.rows[0].iops = Some(5000.0);
    b.rows[0].round_iops = vec![Some(5000.0), None, Some(8000.0)];
    b.rows[0].p50_ns = Some(15_000);
    b.rows[0].p99_ns = None;
    let diff = Diff::of(&a, &b);
    let row = &diff.rows[0];
    assert_eq!((row.iops_ratio, row.p50_ratio, row.p99_ratio), (Some(5.0), Some(0.5), None));
    assert_eq!((row.iops_ratio_low, row.iops_ratio_high), (Some(1.25), Some(8.0)));
    assert_eq!((row.distinguishable(), diff.rows[1].distinguishable()), (Some(true), Some(false)));
    let text = render_diff(&diff);
    let line = text.lines().find(|l| l.contains("rand-read-1") && l.contains("fast-mmio+irqfd")).unwrap();
    assert!(
        line.contains("5.000 (1.250 to 8.000)") && line.contains("0.500") && !line.contains('~'),
        "{text}"
    );
}

#[test]
fn rows_are_matched_by_what_they_are_not_by_their_place() {
    let (a, mut b) = (report(), report());
    b.rows.reverse();
    b.rows[0].poll_us = Some(50);
    let diff = Diff::of(&a, &b);
    assert_eq!((diff.rows.len(), diff.only_a.len(), diff.only_b.len()), (3, 1, 1));
    assert_eq!((diff.only_a[0].poll_us, diff.only_b[0].poll_us), (None, Some(50)));
    for row in &diff.rows {
        assert_ne!(row.distinguishable(), Some(true), "{row:?}");
    }
    let text = render_diff(&diff);
    assert!(text.contains("only in A: linux rand-read-32 fast-mmio+signal-msi io_uring\n"), "{text}");
    assert!(
        text.ends_with("only in B: linux rand-read-32 fast-mmio+signal-msi io_uring poll 50 us"),
        "{text}"
    );
}

#[test]
fn every_part_of_the_identity_counts() {
    let row = Row::default();
    let text = || Some("x".to_string());
    let others = [
        Row { guest: "x".into(), ..row.clone() },
        Row { peer: text(), ..row.clone() },
        Row { job: "x".into(), ..row.clone() },
        Row { notify: text(), ..row.clone() },
        Row { complete: text(), ..row.clone() },
        Row { wait: text(), ..row.clone() },
        Row { backend: text(), ..row.clone() },
        Row { queues: Some(1), ..row.clone() },
        Row { depth: Some(1), ..row.clone() },
        Row { poll_us: Some(1), ..row.clone() },
    ];
    for other in &others {
        assert_ne!(Identity::of(&row), Identity::of(other));
    }
    assert_eq!(Identity::of(&row), Identity::of(&Row { iops: Some(1.0), ..row }));
}

#[test]
fn a_row_of_one_host_is_listed_under_that_host() {
    let (a, mut b) = (report(), report());
    b.rows[1].not_here = Some("no".into());
    let diff = Diff::of(&a, &b);
    assert_eq!((diff.rows.len(), diff.only_a.len(), diff.only_b.len()), (3, 1, 0));
}

#[test]
fn facts_that_differ_are_named_and_what_every_run_has_of_its_own_is_not() {
    let (a, mut b) = (report(), report());
    b.host.kernel = Some("9.9".into());
    b.run.rounds = 7;
    b.run.took_s = 1.0;
    b.run.started_unix = 5;
    b.run.host_interrupts_total = Some(9);
    let diff = Diff::of(&a, &b);
    let names: Vec<_> = diff.facts.iter().map(|fact| fact.name.as_str()).collect();
    assert_eq!(names, ["host.kernel", "run.rounds"]);
    assert!(render_diff(&diff).contains("run.rounds: 3 | 7"));
}

#[test]
fn rounds_without_requests_make_no_ratio() {
    let (mut a, b) = (report(), report());
    a.rows[0].iops = Some(0.0);
    a.rows[0].round_iops = vec![Some(0.0)];
    a.rows[0].p50_ns = None;
    let row = &Diff::of(&a, &b).rows[0];
    assert_eq!((row.iops_ratio, row.iops_ratio_high, row.p50_ratio), (None, None, None));
    assert!(render_diff(&Diff::of(&a, &b)).contains('-'));
}

#[test]
fn the_json_names_its_format_and_flattens_the_identity() {
    let a = report();
    let json = serde_json::to_value(Diff::of(&a, &a)).unwrap();
    assert_eq!(json["schema"], DIFF_SCHEMA);
    assert_eq!(json["rows"][0]["job"], "rand-read-1");
    assert_eq!(json["rows"][0]["iops_ratio"], 1.0);
}

#[test]
fn a_written_file_is_read_back_and_any_other_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_report(&path).map_err(|error| error.to_string())
    };
    let a = report();
    assert_eq!(read(&crate::bench::to_json(&a)).unwrap(), a);
    let cases = [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "schema is missing"),
        ("{\"schema\": 1}", "something else"),
        ("{\"schema\": \"doorbell-bench/99\"}", "\"doorbell-bench/99\""),
        ("{\"schema\": \"doorbell-bench/2\"}", "does not follow its schema"),
        (
            "{\"schema\": \"doorbell-bench/2\", \"host\": {}, \"run\": {}, \"rows\": 3}",
            "does not follow its schema",
        ),
    ];
    for (text, wanted) in cases {
        let error = read(text).unwrap_err();
        assert!(error.contains(wanted) && error.contains("r.json") && !error.contains('\n'), "{error}");
    }
    assert!(read_report(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    // An older report lacks newer fields.
    let old = r#"{"schema": "doorbell-bench/2", "host": {}, "run": {}, "rows": [{"guest": "probe", "job": "floor"}]}"#;
    assert_eq!(read(old).unwrap().rows[0].job, "floor");
}
