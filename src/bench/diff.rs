//! Two results side by side: two kernels, two hosts, two versions.

mod many;
mod table;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::report::{Report, Row, SCHEMA};
pub use many::{ManyRow, compare_many, render_many};
pub use table::render_diff;

/// Name and version of the JSON format of a comparison.
pub const DIFF_SCHEMA: &str = "doorbell-bench-diff/1";

/// The differences between report A and report B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// [`DIFF_SCHEMA`].
    pub schema: &'static str,
    /// Facts of the host and of the run that differ.
    pub facts: Vec<Fact>,
    /// Rows that both reports have.
    pub rows: Vec<RowDiff>,
    /// Rows that were measured only for A.
    pub only_a: Vec<Identity>,
    /// Rows that were measured only for B.
    pub only_b: Vec<Identity>,
}

/// A fact that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// "host.kernel", "run.rounds", ...
    pub name: String,
    /// In A.
    pub a: Value,
    /// In B.
    pub b: Value,
}

/// The identity of a row, which is the same in all reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// As [`Row::guest`], and so on.
    pub guest: String,
    /// The reference VMM; `None`: doorbell.
    pub peer: Option<String>,
    /// The job.
    pub job: String,
    /// Notify path.
    pub notify: Option<String>,
    /// Complete path.
    pub complete: Option<String>,
    /// How the host waits.
    pub wait: Option<String>,
    /// Backend.
    pub backend: Option<String>,
    /// Request queues.
    pub queues: Option<u64>,
    /// Requests in flight.
    pub depth: Option<u64>,
    /// Longest busy-poll.
    pub poll_us: Option<u64>,
    /// How interrupts are held back.
    pub moderate: Option<String>,
    /// The layout of its ring.
    pub ring: Option<String>,
}

impl Identity {
    /// The identity of `row`.
    pub fn of(row: &Row) -> Identity {
        Identity {
            guest: row.guest.clone(),
            peer: row.peer.clone(),
            job: row.job.clone(),
            notify: row.notify.clone(),
            complete: row.complete.clone(),
            wait: row.wait.clone(),
            backend: row.backend.clone(),
            queues: row.queues,
            depth: row.depth,
            poll_us: row.poll_us,
            moderate: row.moderate.clone(),
            ring: row.ring.clone(),
        }
    }
}

/// A row that both reports have; every ratio is B to A.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowDiff {
    /// The row.
    #[serde(flatten)]
    pub row: Identity,
    /// IOPS of A.
    pub iops_a: Option<f64>,
    /// IOPS of B.
    pub iops_b: Option<f64>,
    /// Ratio of B to A.
    pub iops_ratio: Option<f64>,
    /// The slowest round of B to the fastest of A.
    pub iops_ratio_low: Option<f64>,
    /// The fastest round of B to the slowest of A. If 1 lies between, A and B cannot be distinguished.
    pub iops_ratio_high: Option<f64>,
    /// Median of A.
    pub p50_ns_a: Option<u64>,
    /// Median of B.
    pub p50_ns_b: Option<u64>,
    /// Ratio of B to A.
    pub p50_ratio: Option<f64>,
    /// 99th percentile of A.
    pub p99_ns_a: Option<u64>,
    /// 99th percentile of B.
    pub p99_ns_b: Option<u64>,
    /// Ratio of B to A.
    pub p99_ratio: Option<f64>,
}

impl Diff {
    /// Compares two reports.
    pub fn of(a: &Report, b: &Report) -> Diff {
        let measured = |report: &'_ Report| -> Vec<Row> {
            report.rows.iter().filter(|row| row.not_here.is_none()).cloned().collect()
        };
        let (a_rows, mut left) = (measured(a), measured(b));
        let (mut rows, mut only_a) = (Vec::new(), Vec::new());
        for a in a_rows {
            let identity = Identity::of(&a);
            // Each row of B is used once, so rows that occur twice are compared in their order.
            match left.iter().position(|b| Identity::of(b) == identity) {
                Some(at) => rows.push(RowDiff::of(identity, &a, &left.remove(at))),
                None => only_a.push(identity),
            }
        }
        let only_b = left.iter().map(Identity::of).collect();
        Diff { schema: DIFF_SCHEMA, facts: facts(a, b), rows, only_a, only_b }
    }
}

impl RowDiff {
    fn of(row: Identity, a: &Row, b: &Row) -> RowDiff {
        let whole = |ns: Option<u64>| ns.map(|ns| ns as f64);
        let (low_a, high_a) = span(a);
        let (low_b, high_b) = span(b);
        RowDiff {
            row,
            iops_a: a.iops,
            iops_b: b.iops,
            iops_ratio: ratio(a.iops, b.iops),
            iops_ratio_low: ratio(high_a, low_b),
            iops_ratio_high: ratio(low_a, high_b),
            p50_ns_a: a.p50_ns,
            p50_ns_b: b.p50_ns,
            p50_ratio: ratio(whole(a.p50_ns), whole(b.p50_ns)),
            p99_ns_a: a.p99_ns,
            p99_ns_b: b.p99_ns,
            p99_ratio: ratio(whole(a.p99_ns), whole(b.p99_ns)),
        }
    }

    /// Whether all rounds of one report lie above all rounds of the other; `None`: not known.
    pub fn distinguishable(&self) -> Option<bool> {
        let (low, high) = (self.iops_ratio_low?, self.iops_ratio_high?);
        Some(low > 1.0 || high < 1.0)
    }
}

/// Slowest and fastest round.
fn span(row: &Row) -> (Option<f64>, Option<f64>) {
    let rounds = || row.round_iops.iter().flatten().copied();
    (rounds().min_by(f64::total_cmp), rounds().max_by(f64::total_cmp))
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let ratio = b? / a?;
    ratio.is_finite().then_some(ratio)
}

/// Facts that differ in every run, and are not compared.
const NOT_COMPARED: [&str; 10] = [
    "command",
    "load_before",
    "load_after",
    "steal_percent",
    "started_unix",
    "took_s",
    "first_instruction_ns",
    "resident_bytes",
    "host_interrupts",
    "host_interrupts_total",
];

fn facts(a: &Report, b: &Report) -> Vec<Fact> {
    let parts = |report: &Report| {
        [("host", serde_json::to_value(&report.host)), ("run", serde_json::to_value(&report.run))]
    };
    let mut facts = Vec::new();
    for ((part, a), (_, b)) in parts(a).into_iter().zip(parts(b)) {
        let (Ok(Value::Object(a)), Ok(Value::Object(b))) = (a, b) else { continue };
        for (name, a) in a.into_iter().filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str())) {
            let b = b.get(&name).cloned().unwrap_or(Value::Null);
            if a != b {
                facts.push(Fact { name: format!("{part}.{name}"), a, b });
            }
        }
    }
    facts
}

/// Why a file is not a report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// errno.
        cause: std::io::Error,
    },
    /// It is not JSON.
    #[error("{} is not JSON ({cause}); use a file that `doorbell bench --json FILE` wrote", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: serde_json::Error,
    },
    /// It has another schema, or none.
    #[error("{} cannot be compared: its schema is {found}, and this version reads \"{SCHEMA}\"", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema that it names.
        found: String,
    },
    /// It names the schema but does not follow it.
    #[error("{} does not follow its schema \"{SCHEMA}\" ({cause}); see docs/bench.schema.json", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: serde_json::Error,
    },
}

/// Reads a report that `--json` wrote.
///
/// # Errors
/// See [`ReadError`].
pub fn read_report(path: &Path) -> Result<Report, ReadError> {
    let path = path.to_path_buf();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(cause) => return Err(ReadError::Io { path, cause }),
    };
    let value: Value = match serde_json::from_slice(&bytes) {
        Ok(value) => value,
        Err(cause) => return Err(ReadError::Json { path, cause }),
    };
    let schema = value.get("schema").cloned().unwrap_or(Value::Null);
    if schema != SCHEMA {
        // A long or nested value would not help the user.
        let found = match schema {
            Value::Null => "missing".into(),
            Value::String(text) if text.len() < 100 => format!("{text:?}"),
            _ => "something else".into(),
        };
        return Err(ReadError::Schema { path, found });
    }
    serde_json::from_value(value).map_err(|cause| ReadError::Content { path, cause })
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
