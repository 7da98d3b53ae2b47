use super::super::{QueueRecording, Row};
use super::*;

fn recording(requests: &[RequestTimestamps]) -> Recording {
    let requests = requests.iter().map(Row::from).collect();
    let queue = QueueRecording { device: "</script>".into(), queue: 0, dropped: 0, requests };
    Recording { pid: 1, threads: vec![(7, "iothread0".into())], queues: vec![queue] }
}

fn timestamps(id: u64, last: u64) -> RequestTimestamps {
    RequestTimestamps {
        id,
        kind: RequestKind::Read,
        len: 512,
        seen: 1000,
        taken: 1010,
        parsed: 1030,
        submitted: 1040,
        completed: 1060,
        ending: 1070,
        published: 1080,
        signalled: last,
        thread: 7,
        ..RequestTimestamps::default()
    }
}

#[test]
fn every_hop_of_a_request_has_its_text_and_they_fill_its_time() {
    let texts = hops();
    for (last, queued, name) in [(1100, false, "interrupt"), (1100, true, "queued"), (0, false, "none")] {
        let timestamps = RequestTimestamps { queued, ..timestamps(1, last) };
        let request = request("disk0 queue 0", &timestamps);
        let hops = request["hops"].as_array().unwrap();
        assert_eq!(hops.last().unwrap()["name"], name);
        let sum: u64 = hops.iter().map(|hop| hop["ns"].as_u64().unwrap()).sum();
        assert_eq!(sum, request["ns"].as_u64().unwrap(), "no time is left out or counted twice");
        for hop in hops {
            let text = &texts[hop["name"].as_str().unwrap()];
            assert!(text["says"].as_str().is_some_and(|says| says.len() > 40), "{hop}: {text}");
        }
    }
    for name in ["offer", "kick", "handler"] {
        assert!(texts[name]["place"].as_str().is_some_and(|place| !place.is_empty()), "{name}");
    }
    let lanes = ["guest", "KVM", "I/O thread", "device", "interrupt"];
    assert!(texts.as_object().unwrap().values().all(|text| lanes.contains(&text["lane"].as_str().unwrap())));
}

#[test]
fn a_page_needs_nothing_else_and_a_name_cannot_leave_the_script() {
    let html = page(&recording(&[timestamps(1, 1100), timestamps(2, 1200)])).unwrap();
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("</script>").count(), 1);
    assert_eq!(page(&recording(&[])), None);
}

#[test]
fn of_many_requests_the_fastest_and_the_slowest_are_kept() {
    let requests = (0..1000).map(|n| ("q".to_string(), timestamps(n, 1100 + n)));
    let chosen = choose(requests.collect()).unwrap();
    assert_eq!(chosen.len(), MOST);
    assert_eq!((chosen[0].1.id, chosen[MOST - 1].1.id), (0, 999));
}
