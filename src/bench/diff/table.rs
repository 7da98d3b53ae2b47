//! A comparison as text.

use serde_json::Value;

use super::{Diff, Identity, RowDiff};
use crate::observe::text::table;

const NONE: &str = "-";
const HEADINGS: &[&str] =
    &["row", "IOPS B/A (low to high)>", "p50 us A>", "p50 us B>", "p50 B/A>", "p99 B/A>", ">"];

/// The comparison as lines of text: facts that differ, ratios per row, and rows that only one report has.
pub fn render_diff(diff: &Diff) -> String {
    let mut lines = Vec::new();
    if diff.facts.is_empty() {
        lines.push("same host, measured in the same way".to_string());
    }
    for fact in &diff.facts {
        lines.push(format!("{}: {} | {}", fact.name, text(&fact.a), text(&fact.b)));
    }
    if !diff.rows.is_empty() {
        lines.push(rows(&diff.rows));
        lines.push(
            "Ratios are B to A: IOPS above 1, latencies below 1 mean that B is faster. Low: slowest round of B to fastest of A; \
             high: the other way. ~: 1 lies between, A and B cannot be distinguished."
                .into(),
        );
    }
    for (which, only) in [("A", &diff.only_a), ("B", &diff.only_b)] {
        lines.extend(only.iter().map(|row| format!("only in {which}: {}", sentence(row))));
    }
    lines.join("\n")
}

fn rows(rows: &[RowDiff]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            sentence(&row.row),
            match (row.iops_ratio, row.iops_ratio_low, row.iops_ratio_high) {
                (Some(ratio), Some(low), Some(high)) => format!("{ratio:.3} ({low:.3} to {high:.3})"),
                (Some(ratio), ..) => format!("{ratio:.3}"),
                _ => NONE.into(),
            },
            micros(row.p50_ns_a),
            micros(row.p50_ns_b),
            three(row.p50_ratio),
            three(row.p99_ratio),
            if row.distinguishable() == Some(false) { "~".into() } else { String::new() },
        ]
    });
    table(HEADINGS, cells)
}

/// The name of a row, without the parts that have their default.
pub(super) fn sentence(row: &Identity) -> String {
    let mut words = vec![row.guest.clone()];
    words.extend(row.peer.clone());
    words.push(row.job.clone());
    let path: Vec<_> = [&row.notify, &row.complete].into_iter().flatten().cloned().collect();
    words.push(path.join("+"));
    words.extend(row.backend.clone());
    words.extend(row.wait.clone().filter(|wait| wait != "blocking"));
    words.extend(row.queues.filter(|&n| n != 1).map(|n| format!("{n} queues")));
    words.extend(row.poll_us.filter(|&us| us != 0).map(|us| format!("poll {us} us")));
    words.extend(row.moderate.as_ref().filter(|how| *how != "off").map(|how| format!("moderate={how}")));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "unknown".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn micros(ns: Option<u64>) -> String {
    ns.map_or(NONE.into(), |ns| format!("{:.1}", ns as f64 / 1000.0))
}

fn three(ratio: Option<f64>) -> String {
    ratio.map_or(NONE.into(), |ratio| format!("{ratio:.3}"))
}
