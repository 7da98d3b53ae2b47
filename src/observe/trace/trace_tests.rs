use std::collections::HashMap;

use super::*;

/// Two requests of one batch that came with one kick, and a third without an interrupt.
fn recording() -> Recording {
    let timestamps = |id, base: u64, signalled| RequestTimestamps {
        id,
        kind: RequestKind::Read,
        len: 4096,
        seen: base,
        taken: base + 100,
        parsed: base + 200 + 10 * id,
        submitted: base + 300 + 10 * id,
        completed: base + 5000 + 10 * id,
        ending: base + 6000,
        published: base + 6500,
        signalled,
        thread: 42,
        deferred: true,
        queued: signalled == 0,
        held: false,
    };
    let requests = [timestamps(1, 1000, 8500), timestamps(2, 1000, 8500), timestamps(3, 20_000, 0)];
    let queue = QueueRecording {
        device: "disk0".into(),
        queue: 0,
        dropped: 5,
        requests: requests.iter().map(Row::from).collect(),
    };
    Recording { pid: 40, threads: vec![(40, "main".into()), (42, "iothread0".into())], queues: vec![queue] }
}

#[test]
fn rows_carry_every_stamp_there_and_back() {
    let recording = recording();
    let text = serde_json::to_string(&recording).unwrap();
    assert_eq!(serde_json::from_str::<Recording>(&text).unwrap(), recording);
    let row = recording.queues[0].requests[1];
    assert_eq!(Row::from(&row.timestamps()), row);
    assert_eq!(
        (row.timestamps().kind, row.timestamps().thread, row.timestamps().deferred),
        (RequestKind::Read, 42, true)
    );
}

#[test]
fn the_summary_counts_per_stage_and_says_what_was_dropped() {
    let summary = Summary::of(&recording());
    assert_eq!((summary.requests, summary.dropped), (3, 5));
    let stage = |name: &str| summary.stages.iter().find(|stage| stage.stage == name).unwrap();
    assert_eq!(stage("published > interrupt sent").requests, 2, "one batch had no interrupt");
    assert_eq!((stage("parsed > submitted").min_ns, stage("parsed > submitted").max_ns), (100, 100));
    let mut queued = recording();
    let timestamps = RequestTimestamps { signalled: 26_600, ..queued.queues[0].requests[2].timestamps() };
    queued.queues[0].requests[2] = Row::from(&timestamps);
    let summary = Summary::of(&queued);
    let count =
        |name: &str| summary.stages.iter().find(|stage| stage.stage == name).map(|stage| stage.requests);
    assert_eq!(
        (count("published > interrupt sent"), count("published > interrupt queued")),
        (Some(2), Some(1))
    );
    let table = summary.table();
    assert!(table.contains("disk0 queue 0") && table.contains("5 more"), "{table}");
}

/// Checks the fields that the Chrome trace event format requires of each kind of event.
fn check(event: &serde_json::Value) {
    let has = |key: &str| assert!(event.get(key).is_some(), "no {key}: {event}");
    ["ph", "pid", "tid", "name"].into_iter().for_each(has);
    match event["ph"].as_str().unwrap() {
        "M" => assert!(event["args"]["name"].is_string()),
        "X" => assert!(event["ts"].is_number() && event["dur"].as_f64().unwrap() >= 0.0, "{event}"),
        "b" | "e" => ["ts", "cat", "id2"].into_iter().for_each(has),
        "s" | "f" => ["ts", "cat", "id"].into_iter().for_each(has),
        other => panic!("unknown phase {other}"),
    }
}

#[test]
fn the_timeline_has_one_whole_flow_and_one_lane_per_request() {
    let timeline = timeline(&recording());
    let events = timeline["traceEvents"].as_array().unwrap();
    events.iter().for_each(check);
    let of = |phase: &str| events.iter().filter(|e| e["ph"] == phase).collect::<Vec<_>>();
    assert_eq!((of("s").len(), of("f").len()), (3, 3));
    for start in of("s") {
        let end = of("f").into_iter().find(|end| end["id"] == start["id"]).unwrap();
        assert!(end["ts"].as_f64() >= start["ts"].as_f64());
        for flow in [start, end] {
            let at = flow["ts"].as_f64().unwrap();
            let inside = |x: &&serde_json::Value| {
                let from = x["ts"].as_f64().unwrap();
                x["tid"] == flow["tid"] && from <= at && at <= from + x["dur"].as_f64().unwrap()
            };
            assert!(of("X").iter().any(inside), "an arrow must begin and end in a slice: {flow}");
        }
    }
    // Asynchronous slices nest: every begin has its end, and time never runs backwards within a lane.
    let mut open: HashMap<String, Vec<(String, f64)>> = HashMap::new();
    for event in events.iter().filter(|e| e["ph"] == "b" || e["ph"] == "e") {
        let lane = open.entry(event["id2"].to_string()).or_default();
        let (name, at) = (event["name"].to_string(), event["ts"].as_f64().unwrap());
        match event["ph"].as_str() {
            Some("b") => lane.push((name, at)),
            _ => assert!(lane.pop().is_some_and(|(begun, from)| begun == name && from <= at), "{event}"),
        }
    }
    assert!(open.len() == 3 && open.values().all(Vec::is_empty));
}

/// The second request's interrupt was held until that of the third.
#[test]
fn a_held_interrupt_has_a_lane_of_its_own_and_no_slice_of_the_thread() {
    let mut held = recording();
    let of = |n: usize| recording().queues[0].requests[n].timestamps();
    held.queues[0].requests[1] =
        Row::from(&RequestTimestamps { held: true, ending: 7000, signalled: 26_600, ..of(1) });
    held.queues[0].requests[2] = Row::from(&RequestTimestamps { signalled: 26_600, queued: false, ..of(2) });
    let timeline = timeline(&held);
    let events = timeline["traceEvents"].as_array().unwrap();
    events.iter().for_each(check);
    let lane: Vec<_> = events.iter().filter(|event| event["cat"] == "hold").collect();
    let [begin, end] = lane[..] else { panic!("{lane:?}") };
    assert_eq!((begin["ph"].as_str(), begin["ts"].as_f64()), (Some("b"), Some(7.5)));
    assert_eq!((end["ph"].as_str(), end["ts"].as_f64()), (Some("e"), Some(26.6)));
    assert_eq!(begin["args"]["completions_held"], 1);
    let long = |event: &&serde_json::Value| event["ph"] == "X" && event["dur"].as_f64().unwrap() > 10.0;
    assert_eq!(events.iter().find(long), None);
    let summary = Summary::of(&held);
    let stage =
        |name: &str| summary.stages.iter().find(|stage| stage.stage == name).map(|stage| stage.requests);
    assert_eq!(
        (stage("published > held interrupt"), stage("published > interrupt sent")),
        (Some(1), Some(2))
    );
}

#[test]
fn slices_of_a_thread_nest() {
    let timeline = timeline(&recording());
    let slices: Vec<(f64, f64)> = timeline["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["ph"] == "X")
        .map(|e| (e["ts"].as_f64().unwrap(), e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap()))
        .collect();
    for a in &slices {
        for b in &slices {
            assert!(
                a.1 <= b.0 || b.1 <= a.0 || (a.0 <= b.0 && b.1 <= a.1) || (b.0 <= a.0 && a.1 <= b.1),
                "{a:?} {b:?}"
            );
        }
    }
}

#[test]
fn an_empty_recording_is_an_empty_timeline() {
    let empty = Recording::default();
    assert_eq!(timeline(&empty)["traceEvents"].as_array().unwrap().len(), 1);
    assert!(Summary::of(&empty).table().contains("0 requests"));
}
