use serde_json::{Value, json};

use super::*;
use crate::bench::testing::{report, violations};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/bench.schema.json")).expect("the schema is JSON")
}

#[test]
fn a_count_per_request_needs_both() {
    assert_eq!(per_request(Some(3), Some(2)), Some(1.5));
    assert_eq!(per_request(Some(3), Some(0)), None);
    assert_eq!(per_request(None, Some(2)), None);
    assert_eq!(per_request(Some(2), None), None);
}

#[test]
fn a_percentile_needs_ten_requests_beyond_it() {
    let mut row = Row {
        requests: Some(1000),
        p50_ns: Some(1),
        p90_ns: Some(2),
        p99_ns: Some(3),
        p999_ns: Some(4),
        ..Row::default()
    };
    row.keep_supported_percentiles();
    assert_eq!((row.p90_ns, row.p99_ns, row.p999_ns), (Some(2), Some(3), None));
    row.requests = Some(19);
    row.keep_supported_percentiles();
    assert_eq!((row.p50_ns, row.p90_ns, row.p99_ns), (None, None, None));
}

#[test]
fn an_unmeasured_value_is_null_in_the_json() {
    let row = serde_json::to_value(Row::default()).unwrap();
    let fields = row.as_object().unwrap();
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| !["guest", "job", "round_iops", "round_p50_ns"].contains(&name.as_str()))
    {
        assert!(value.is_null(), "{name}");
    }
    let issue = "guest job notify complete backend queues depth iops mean_ns p50_ns p99_ns p999_ns requests \
                 interrupts kicks_ioeventfd kicks_exit exits iothread_syscalls ratio ratio_low ratio_high ratio_of verdict \
                 min_ns p90_ns kick_p50_ns interrupt_p50_ns poll_us floor_p50_ns floor_ratio peer";
    for name in issue.split_whitespace() {
        assert!(fields.contains_key(name), "{name}");
    }
}

#[test]
fn a_report_is_what_the_schema_says_and_comes_back() {
    let report = report();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(violations(&schema(), &schema(), &json, ""), Vec::<String>::new());
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    // Every field may be unknown.
    let bare =
        Report { rows: vec![Row { guest: "probe".into(), job: "floor".into(), ..Row::default() }], ..report };
    let json = serde_json::to_value(&bare).unwrap();
    assert_eq!(violations(&schema(), &schema(), &json, ""), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_is_not_a_report() {
    let good = serde_json::to_value(report()).unwrap();
    let broken = |pointer: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        violations(&schema(), &schema(), &json, "")
    };
    assert_eq!(broken("/schema", json!("doorbell-bench/1")).len(), 1);
    assert_eq!(broken("/rows/0/iops", json!("fast")).len(), 1);
    assert_eq!(broken("/rows/1/requests", json!(-1)).len(), 1);
    assert_eq!(broken("/rows/1/guest", json!("windows")).len(), 1);
    assert_eq!(broken("/host/lab", Value::Null).len(), 1);
    let mut json = good.clone();
    json["rows"][0].as_object_mut().unwrap().remove("exits");
    json["rows"][0]["typo"] = json!(1);
    let found = violations(&schema(), &schema(), &json, "");
    assert!(found.len() == 2 && found.iter().any(|v| v == "/rows/0: exits is missing"), "{found:?}");
}

#[test]
fn every_field_is_described() {
    let schema = schema();
    for (name, kind) in
        [("row", serde_json::to_value(Row::default())), ("run", serde_json::to_value(RunFacts::default()))]
    {
        let described = &schema["$defs"][name]["properties"];
        for field in kind.unwrap().as_object().unwrap().keys() {
            assert!(
                described[field]["description"].is_string() || described[field]["$ref"].is_string(),
                "{field}"
            );
        }
    }
}
