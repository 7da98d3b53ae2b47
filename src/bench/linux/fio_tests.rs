use proptest::prelude::*;

use serde_json::{Value, json};

use super::*;

fn output(read: u64, write: u64) -> Value {
    let direction = |ios: u64| {
        json!({
            "total_ios": ios, "runtime": if ios > 0 { 2000 } else { 0 }, "iops": 1,
            "lat_ns": {
                "min": 900, "max": 9000, "mean": if ios > 0 { 1500.0 } else { 0.0 }, "N": ios,
                "percentile": {"50.000000": 1000},
                "bins": if ios > 0 { json!({"1000": ios - 1, "9000": 1}) } else { json!({}) },
            },
        })
    };
    json!({"fio version": "fio-3.33", "jobs": [{"error": 0, "read": direction(read), "write": direction(write)}]})
}

#[test]
fn both_directions_count() {
    let text = format!("fio: a warning\n{}", output(100, 300));
    let got = parse(text.as_bytes(), false).unwrap();
    assert_eq!((got.requests, got.iops, got.seconds), (400, 200.0, 2.0));
    assert_eq!((got.latency.mean(), got.latency.min()), (Some(1500.0), Some(900)));
    assert_eq!(got.latency.percentile(50.0), Some(1000));
    assert_eq!(got.latency.percentile(99.5), Some(1000));
    assert_eq!(got.latency.percentile(99.9), Some(9000));
    assert_eq!(got.version, "fio-3.33");
}

#[test]
fn a_direction_that_did_nothing_has_no_fastest_request() {
    let got = parse(output(10, 0).to_string().as_bytes(), false).unwrap();
    assert_eq!((got.requests, got.latency.min()), (10, Some(900)));
    let nothing = Histogram::default();
    assert_eq!((nothing.mean(), nothing.min(), nothing.percentile(50.0)), (None, None, None));
}

#[test]
fn jobs_of_one_section_run_at_the_same_time_and_verification_after_the_writes() {
    let mut two = output(100, 300);
    let jobs = two["jobs"].as_array_mut().unwrap();
    jobs.push(jobs[0].clone());
    let got = parse(two.to_string().as_bytes(), false).unwrap();
    assert_eq!((got.requests, got.seconds, got.latency.count), (800, 2.0, 800));
    assert_eq!(parse(output(300, 300).to_string().as_bytes(), true).unwrap().seconds, 4.0);
}

#[test]
fn completion_latencies_stand_in_where_a_job_asks_for_them() {
    let mut out = output(100, 0);
    let lat = out["jobs"][0]["read"]["lat_ns"].as_object_mut().unwrap();
    let bins = lat.remove("bins").unwrap();
    out["jobs"][0]["read"]["clat_ns"] = json!({"min": 1, "max": 2, "mean": 1.0, "N": 100, "bins": bins});
    let got = parse(out.to_string().as_bytes(), false).unwrap();
    assert_eq!((got.latency.percentile(50.0), got.latency.mean()), (Some(1000), Some(1500.0)));
}

#[test]
fn percentiles_are_taken_over_all_rounds_together() {
    let round = |value: u64, count: u64| Histogram {
        bins: [(value, count)].into(),
        sum: (value * count) as f64,
        count,
        min: Some(value),
    };
    let mut all = round(100, 10);
    all.add(&round(200, 89));
    all.add(&round(50, 1));
    assert_eq!(
        (all.percentile(1.0), all.percentile(10.0), all.percentile(99.0)),
        (Some(50), Some(100), Some(200))
    );
    assert_eq!((all.min(), all.mean()), (Some(50), Some(188.5)));
}

#[test]
fn every_error_is_reported() {
    assert_eq!(parse(b"fio: no such file", false), Err("no JSON in it".into()));
    assert!(parse(b"{\"jobs\": 3}", false).is_err());
    assert_eq!(parse(output(0, 0).to_string().as_bytes(), false), Err("fio completed no request".into()));
    let mut failed = output(1, 0);
    failed["jobs"][0]["error"] = json!(5);
    assert!(parse(failed.to_string().as_bytes(), false).unwrap_err().contains("Input/output error"));
    failed["jobs"] = json!([]);
    assert_eq!(parse(failed.to_string().as_bytes(), false), Err("fio completed no request".into()));
}

#[test]
fn the_median_moves_within_a_bin() {
    let with =
        |bins: &[(u64, u64)]| Histogram { bins: bins.iter().copied().collect(), ..Histogram::default() };
    assert_eq!([1, 127, 128, 255, 256, 1000, 32_900].map(width), [1, 1, 2, 2, 4, 8, 512]);
    assert_eq!(with(&[]).median(), None);
    // A bin of 8 around 1000 begins at 996; half of it is 1000.
    assert_eq!(with(&[(1000, 10)]).median(), Some(1000.0));
    assert_eq!(with(&[(900, 4), (1000, 10), (1100, 6)]).median(), Some(996.0 + 8.0 * 0.6));
    assert_eq!(with(&[(900, 5), (1000, 5)]).median(), Some(904.0));
}

proptest! {
    /// fio's output comes from the guest: any change of it is understood, or refused in a sentence, and the figures are finite.
    #[test]
    fn any_output_is_understood_or_refused(
        ios in (0..1000u64, 0..1000u64),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[-0-9.eE{}\\[\\]:,\"a-z]{0,4}"), 0..6),
        reads_back in any::<bool>(),
    ) {
        let mut text = output(ios.0, ios.1).to_string();
        for (at, new) in changes {
            let at = at.index(text.len());
            let end = (at + new.len()).min(text.len());
            text.replace_range(at..end, &new);
        }
        match parse(text.as_bytes(), reads_back) {
            Ok(got) => {
                let [mean, median] = [got.latency.mean(), got.latency.median()];
                prop_assert!([mean, median, Some(got.iops)].into_iter().flatten().all(f64::is_finite), "{text}: {got:?}");
                got.latency.percentile(99.0);
                Histogram::default().add(&got.latency);
            }
            Err(why) => prop_assert!(!why.is_empty()),
        }
    }
}
