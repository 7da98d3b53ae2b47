use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{QueueRecording, Recording};
use crate::dataplane::{RequestKind, RequestTimestamps};

/// A recording in the Chrome trace event format, which the Perfetto viewer opens.
///
/// The VMM is one process with a track per thread. A track has a slice for each time the thread took requests from a
/// ring, and for each batch that it ended, with the interrupt inside. Every queue is another process with a lane per
/// request, divided into its stages, and a lane of the interrupts that were held. An arrow leads from the slice that took a request to the one that published it.
pub fn timeline(recording: &Recording) -> Value {
    let mut events = vec![process_name(recording.pid, &format!("doorbell (process {})", recording.pid))];
    for (tid, name) in &recording.threads {
        events.push(json!({"ph": "M", "name": "thread_name", "pid": recording.pid, "tid": tid, "args": {"name": name}}));
    }
    for (index, queue) in recording.queues.iter().enumerate() {
        Tracks { pid: recording.pid, lanes: QUEUE_PIDS + index as u32, queue, events: &mut events }.draw();
    }
    json!({
        "displayTimeUnit": "ns",
        "otherData": {
            "schema": "doorbell-trace/1",
            "clock": "CLOCK_MONOTONIC",
            "dropped": recording.queues.iter().map(|queue| queue.dropped).sum::<u64>(),
        },
        "traceEvents": events,
    })
}

/// Process IDs that Linux never gives (PID_MAX_LIMIT is 2^22).
const QUEUE_PIDS: u32 = 1 << 23;

fn process_name(pid: u32, name: &str) -> Value {
    json!({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}})
}

/// Nanoseconds as microseconds, the unit of the format, with three decimals.
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

struct Tracks<'a> {
    pid: u32,
    lanes: u32,
    queue: &'a QueueRecording,
    events: &'a mut Vec<Value>,
}

impl Tracks<'_> {
    fn draw(&mut self) {
        let name = format!("{} queue {}", self.queue.device, self.queue.queue);
        self.events.push(process_name(self.lanes, &name));
        let requests: Vec<_> = self.queue.requests.iter().map(|row| row.timestamps()).collect();
        // Requests of one pass, and of one batch, have the same timestamp.
        let (mut passes, mut batches) =
            (BTreeMap::<_, Vec<&RequestTimestamps>>::new(), BTreeMap::<_, Vec<&RequestTimestamps>>::new());
        for request in &requests {
            passes.entry(request.taken).or_default().push(request);
            batches.entry(request.ending).or_default().push(request);
        }
        for (taken, requests) in passes {
            // A backend that completes at once works within the pass.
            let done = |r: &&RequestTimestamps| if r.deferred { r.submitted } else { r.completed };
            let end = requests.iter().map(done).max().unwrap_or(taken);
            self.slice(requests[0].thread, &format!("take {}: {name}", requests.len()), taken, end);
        }
        for (ending, requests) in batches {
            let RequestTimestamps { published, signalled, thread, queued, held, .. } = *requests[0];
            // A thread that holds an interrupt goes on working: that is no slice of it.
            let signalled = if held { 0 } else { signalled };
            let end = published.max(signalled);
            self.slice(thread, &format!("publish {}: {name}", requests.len()), ending, end);
            if signalled != 0 {
                self.slice(thread, interrupt_slice(queued), published, signalled);
            }
        }
        self.holds(&requests);
        for request in &requests {
            self.lane(request);
            self.arrow(request);
        }
    }

    fn slice(&mut self, tid: u32, name: &str, from: u64, to: u64) {
        let (ts, dur) = (us(from), us(to.saturating_sub(from)));
        self.events.push(json!({"ph": "X", "cat": "thread", "name": name, "pid": self.pid, "tid": tid, "ts": ts, "dur": dur}));
    }

    /// Each hold from the first publication without an interrupt to the interrupt.
    fn holds(&mut self, requests: &[RequestTimestamps]) {
        let mut holds = BTreeMap::<u64, (u64, u32)>::new();
        for request in requests.iter().filter(|request| request.held) {
            let (since, completions) = holds.entry(request.signalled).or_insert((request.published, 0));
            *since = request.published.min(*since);
            *completions += 1;
        }
        for (signalled, (since, completions)) in holds {
            let mut event = json!({
                "ph": "b", "cat": "hold", "name": "held interrupt", "pid": self.lanes, "tid": 0,
                "id2": {"local": format!("{since:#x}")}, "ts": us(since), "args": {"completions_held": completions},
            });
            self.events.push(event.clone());
            (event["ph"], event["ts"]) = ("e".into(), us(signalled).into());
            self.events.push(event);
        }
    }

    /// The request as nested asynchronous slices: one for the whole request, one per stage.
    fn lane(&mut self, request: &RequestTimestamps) {
        let RequestTimestamps {
            id,
            seen,
            parsed,
            submitted,
            completed,
            published,
            signalled,
            queued,
            held,
            ..
        } = *request;
        let interrupt = if held { "held interrupt" } else { interrupt_slice(queued) };
        // The viewer makes one track of all lanes whose outermost slices have the same name.
        let name = "request";
        let work = match request.kind {
            RequestKind::Answer => "answer".to_string(),
            RequestKind::Flush => "flush".to_string(),
            other => format!("{} {}", word(other), request.len),
        };
        let args = json!({"id": id, "bytes": request.len, "batch_thread": request.thread});
        let mut nested = |phase: &str, name: &str, at: u64, args: Option<&Value>| {
            let mut event = json!({
                "ph": phase, "cat": "request", "name": name, "pid": self.lanes, "tid": 0,
                "id2": {"local": format!("{id:#x}")}, "ts": us(at),
            });
            if let Some(args) = args {
                event["args"] = args.clone();
            }
            self.events.push(event);
        };
        nested("b", name, seen, Some(&args));
        let mut stages = vec![("parse", seen, parsed), ("submit", parsed, submitted)];
        stages.extend([(work.as_str(), submitted, completed), ("publish", completed, published)]);
        stages.extend((signalled != 0).then_some((interrupt, published, signalled)));
        for (stage, from, to) in stages {
            nested("b", stage, from, None);
            nested("e", stage, to, None);
        }
        nested("e", name, published.max(signalled), None);
    }

    /// An arrow from the slice that took the request to the one that published it.
    fn arrow(&mut self, request: &RequestTimestamps) {
        // Flow IDs must be unique over all queues.
        let id = u64::from(self.lanes - QUEUE_PIDS) << 40 | request.id;
        let (tid, pid) = (request.thread, self.pid);
        let flow = |phase: &str, at: u64| json!({"ph": phase, "cat": "request", "name": "request", "id": id, "pid": pid, "tid": tid, "ts": us(at)});
        let mut end = flow("f", request.ending);
        end["bp"] = "e".into();
        self.events.extend([flow("s", request.parsed), end]);
    }
}

/// With io_uring the interrupt is queued and sent by the next wait; the end of the wait does not show when.
fn interrupt_slice(queued: bool) -> &'static str {
    if queued { "queue interrupt" } else { "interrupt" }
}

fn word(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Read => "read",
        RequestKind::Write => "write",
        RequestKind::Flush => "flush",
        RequestKind::Discard => "discard",
        RequestKind::WriteZeroes => "write zeroes",
        RequestKind::Answer => "answer",
    }
}
