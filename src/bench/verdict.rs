//! The conclusion from a comparison, in words.
//!
//! A report compares many rows at once, and on average one of 20 intervals of 95 % misses the true value. So each verdict
//! has an interval of 1 - 5 % / comparisons (Bonferroni). Then all verdicts of a report are right with a probability of
//! at least 95 %.

use std::fmt;

use super::Row;
use super::paired::{Paired, fewest_pairs};
use super::row_name::row_name;

/// The probability that chance alone makes any verdict of a report wrong.
pub const ALPHA: f64 = 0.05;

/// A conclusion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Too few rounds to show any difference.
    TooFewRounds {
        /// Rounds in which both rows were measured.
        rounds: usize,
        /// The fewest rounds that can show a difference.
        needed: usize,
        /// Comparisons in the report.
        comparisons: usize,
    },
    /// The interval includes 1.
    NoDifference(Interval),
    /// The interval excludes 1.
    Difference(Interval),
}

/// A ratio above 1 is faster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    ratio: f64,
    low: f64,
    high: f64,
}

impl Verdict {
    /// The verdict of one of `comparisons`.
    pub fn of(paired: &Paired, comparisons: usize) -> Verdict {
        let alpha = ALPHA / comparisons.max(1) as f64;
        let Some((low, high)) = paired.interval(alpha) else {
            let needed = fewest_pairs(alpha);
            return Verdict::TooFewRounds { rounds: paired.pairs(), needed, comparisons };
        };
        Verdict::with(paired.ratio(), (low, high))
    }

    /// Of a ratio and its interval.
    pub fn with(ratio: f64, (low, high): (f64, f64)) -> Verdict {
        let interval = Interval { ratio, low, high };
        if low <= 1.0 && 1.0 <= high {
            Verdict::NoDifference(interval)
        } else {
            Verdict::Difference(interval)
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::TooFewRounds { rounds, needed, comparisons } => {
                let even = needed.next_multiple_of(2);
                let what = if comparisons == 1 {
                    "a comparison needs".into()
                } else {
                    format!("{comparisons} comparisons need")
                };
                write!(f, "too few rounds: {rounds}, and {what} {even}")
            }
            Verdict::NoDifference(Interval { ratio, low, high }) => {
                write!(f, "no difference shown ({ratio:.2}, 95 % {low:.2} to {high:.2}); ")?;
                write!(f, "a difference of {} would have shown", shown(low, high))
            }
            Verdict::Difference(Interval { ratio, low, high }) if ratio < 1.0 => {
                let (ratio, low, high) = (1.0 / ratio, 1.0 / high, 1.0 / low);
                write!(f, "{} x slower ({} to {})", times(ratio), times(low), times(high))
            }
            Verdict::Difference(Interval { ratio, low, high }) => {
                write!(f, "{} x faster ({} to {})", times(ratio), times(low), times(high))
            }
        }
    }
}

/// The smallest difference that the interval excludes in both directions, rounded up.
fn shown(low: f64, high: f64) -> String {
    let factor = high.max(1.0 / low);
    let percent = 100.0 * (factor - 1.0);
    let round = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70].into_iter().find(|&round| f64::from(round) > percent);
    match round {
        Some(round) => format!("{round} %"),
        None if factor < 10.0 => format!("{:.1} x", (factor * 10.0).floor() / 10.0 + 0.1),
        None => format!("{:.0} x", factor.floor() + 1.0),
    }
}

/// A factor of at least 1, with enough digits to differ from 1.
fn times(factor: f64) -> String {
    match factor {
        f if f < 1.1 => format!("{f:.3}"),
        f if f < 2.0 => format!("{f:.2}"),
        f if f < 10.0 => format!("{f:.1}"),
        f => format!("{f:.0}"),
    }
}

/// Whether these words are of a verdict that finds a difference.
pub fn tells_apart(verdict: &str) -> bool {
    [" x slower (", " x faster ("].iter().any(|what| verdict.contains(what))
}

/// The verdicts of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdicts {
    /// What is compared, and with what.
    pub heading: String,
    /// A row's name and its verdict.
    pub rows: Vec<(String, String)>,
}

/// The verdicts of a report, job by job. If all of them are the same, there is one.
pub fn verdicts(rows: &[Row]) -> Vec<Verdicts> {
    let mut jobs: Vec<(&Row, Verdicts)> = Vec::new();
    for row in rows {
        let (Some(verdict), Some(of)) = (&row.verdict, &row.ratio_of) else { continue };
        let job = |row: &Row| (row.guest.clone(), row.job.clone());
        let line = (row_name(row), verdict.clone());
        match jobs.last_mut().filter(|(first, _)| job(first) == job(row)) {
            Some((_, verdicts)) => verdicts.rows.push(line),
            None => {
                let first = rows.iter().find(|first| job(first) == job(row)).map_or(String::new(), row_name);
                let of = if of == "iops" { "IOPS" } else { of };
                let heading = format!("{}, {of}, against {first}", row.job);
                jobs.push((row, Verdicts { heading, rows: vec![line] }));
            }
        }
    }
    let all: Vec<_> = jobs.iter().flat_map(|(_, job)| &job.rows).map(|(_, verdict)| verdict).collect();
    match all.first() {
        Some(first) if all.len() > 1 && all.iter().all(|verdict| verdict == first) => {
            let line = ("every row".to_string(), first.to_string());
            vec![Verdicts { heading: "each row against the first of its job".into(), rows: vec![line] }]
        }
        _ => jobs.into_iter().map(|(_, verdicts)| verdicts).collect(),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
