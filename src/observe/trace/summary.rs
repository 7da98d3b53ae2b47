use hdrhistogram::Histogram;
use serde::Serialize;

use super::{QueueRecording, Recording};
use crate::dataplane::RequestTimestamps;
use crate::observe::text;

/// How long requests spent in each stage, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Requests recorded, all queues together.
    pub requests: u64,
    /// Requests that found a buffer full.
    pub dropped: u64,
    /// Per queue and stage.
    pub stages: Vec<Stage>,
}

/// One stage of one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// "disk0 queue 0".
    pub queue: String,
    /// The stage: its first and its last timestamp.
    pub stage: &'static str,
    /// Requests that passed it.
    pub requests: u64,
    /// Least.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Most.
    pub max_ns: u64,
}

type Span = fn(&RequestTimestamps) -> (u64, u64);

/// The stages, and last the whole request. A stage whose end is 0 did not happen: the driver wanted no interrupt, or the
/// interrupt went the other way.
const STAGES: [(&str, Span); 8] = [
    ("kick seen > parsed", |s| (s.seen, s.parsed)),
    ("parsed > submitted", |s| (s.parsed, s.submitted)),
    ("submitted > completed", |s| (s.submitted, s.completed)),
    ("completed > published", |s| (s.completed, s.published)),
    ("published > interrupt sent", |s| (s.published, if s.queued || s.held { 0 } else { s.signalled })),
    ("published > interrupt queued", |s| (s.published, if s.queued && !s.held { s.signalled } else { 0 })),
    ("published > held interrupt", |s| (s.published, if s.held { s.signalled } else { 0 })),
    ("kick seen > published", |s| (s.seen, s.published)),
];

impl Summary {
    /// Summarizes a recording.
    pub fn of(recording: &Recording) -> Summary {
        Summary {
            requests: recording.queues.iter().map(|queue| queue.requests.len() as u64).sum(),
            dropped: recording.queues.iter().map(|queue| queue.dropped).sum(),
            stages: recording.queues.iter().flat_map(stages).collect(),
        }
    }

    /// The summary as text.
    pub fn table(&self) -> String {
        let headings = ["queue", "stage", "requests>", "min>", "p50>", "p90>", "p99>", "max ns>"];
        let row = |s: &Stage| {
            let numbers = [s.requests, s.min_ns, s.p50_ns, s.p90_ns, s.p99_ns, s.max_ns];
            let words = [s.queue.clone(), s.stage.to_string()];
            words.into_iter().chain(numbers.map(|n| n.to_string())).collect()
        };
        let table = text::table(&headings, self.stages.iter().map(row));
        let dropped = match self.dropped {
            0 => String::new(),
            n => format!("; {n} more found the buffer full and were dropped"),
        };
        format!("{table}\n{} requests recorded{dropped}\n", self.requests)
    }
}

fn stages(queue: &QueueRecording) -> Vec<Stage> {
    let name = format!("{} queue {}", queue.device, queue.queue);
    let stage = |(stage, span): (&'static str, Span)| {
        // Three significant digits are enough; values above an hour are cut to one.
        let mut times = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).ok()?;
        for row in &queue.requests {
            if let (from, to @ 1..) = span(&row.timestamps()) {
                times.saturating_record(to.saturating_sub(from));
            }
        }
        let at = |percentile| times.value_at_percentile(percentile);
        (!times.is_empty()).then(|| Stage {
            queue: name.clone(),
            stage,
            requests: times.len(),
            min_ns: times.min(),
            p50_ns: at(50.0),
            p90_ns: at(90.0),
            p99_ns: at(99.0),
            max_ns: times.max(),
        })
    };
    STAGES.into_iter().filter_map(stage).collect()
}
