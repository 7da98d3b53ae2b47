//! Many runs a side: a verdict for each row.

use serde::Serialize;

use super::Identity;
use crate::bench::unpaired::{Unpaired, fewest_runs};
use crate::bench::verdict::{ALPHA, Verdict};
use crate::bench::{Report, Row};
use crate::observe::text::table;

/// One row of all runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ManyRow {
    /// Which.
    #[serde(flatten)]
    pub row: Identity,
    /// "p50" at depth 1, else "iops".
    pub of: &'static str,
    /// Runs of the base that have it.
    pub base_runs: usize,
    /// New runs that have it.
    pub new_runs: usize,
    /// Above 1: the new ones are faster.
    pub ratio: f64,
    /// Lower end of its own 95 % interval; `None`: too few runs.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// What may be concluded, corrected for the number of rows.
    pub verdict: String,
}

/// Compares the runs of two groups row by row. Only rows that both groups have are compared.
pub fn compare_many(base: &[Report], new: &[Report]) -> Vec<ManyRow> {
    let mut identities: Vec<Identity> = Vec::new();
    for row in base.iter().flat_map(|report| &report.rows).filter(|row| row.not_here.is_none()) {
        let identity = Identity::of(row);
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    let values = |reports: &[Report], identity: &Identity| -> Vec<f64> {
        let row =
            |report: &Report| report.rows.iter().find(|row| Identity::of(row) == *identity).and_then(speed);
        reports.iter().filter_map(row).collect()
    };
    let found: Vec<_> = identities
        .into_iter()
        .filter_map(|identity| {
            let (base, new) = (values(base, &identity), values(new, &identity));
            Some((Unpaired::of(&base, &new)?, base.len(), new.len(), identity))
        })
        .collect();
    let (comparisons, alpha) = (found.len(), ALPHA / found.len().max(1) as f64);
    let row = |(unpaired, base_runs, new_runs, row): (Unpaired, usize, usize, Identity)| {
        let (ratio_low, ratio_high) = unpaired.interval(ALPHA).unzip();
        let verdict = match unpaired.interval(alpha) {
            Some(interval) => Verdict::with(unpaired.ratio(), interval).to_string(),
            None => {
                let (runs, needed) = (unpaired.runs(), fewest_runs(alpha));
                format!("too few runs: {runs} a side, and {comparisons} comparisons need {needed}")
            }
        };
        let of = if row.depth == Some(1) { "p50" } else { "iops" };
        ManyRow { row, of, base_runs, new_runs, ratio: unpaired.ratio(), ratio_low, ratio_high, verdict }
    };
    found.into_iter().map(row).collect()
}

/// One number of a run, larger is better: as the ratios within a run.
fn speed(row: &Row) -> Option<f64> {
    match row.depth {
        Some(1) => row.p50_ns.filter(|&ns| ns > 0).map(|ns| 1e9 / ns as f64),
        _ => row.iops.filter(|&iops| iops > 0.0),
    }
}

/// The comparison as lines of text.
pub fn render_many(rows: &[ManyRow]) -> String {
    let cells = rows.iter().map(|row| {
        let runs = format!("{}, {}", row.base_runs, row.new_runs);
        vec![super::table::sentence(&row.row), row.of.into(), runs, row.verdict.clone()]
    });
    let table = table(&["row", "of", "runs", "new against base"], cells);
    format!(
        "{table}\nRuns are compared by a Mann-Whitney test; above 1 is faster. Intervals are corrected for {} comparisons.",
        rows.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::report;

    fn runs(factor: f64, n: usize) -> Vec<Report> {
        let one = |n: usize| {
            let mut report = report();
            for row in &mut report.rows {
                let noise = 1.0 + 0.001 * n as f64;
                row.iops = row.iops.map(|iops| iops * factor * noise);
                row.p50_ns = row.p50_ns.map(|ns| (ns as f64 / factor / noise) as u64);
            }
            report
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn five_percent_between_groups_are_found_and_nothing_in_equal_ones() {
        let rows = compare_many(&runs(1.0, 8), &runs(1.05, 8));
        assert_eq!((rows.len(), rows[0].of, rows[2].of), (4, "p50", "iops"));
        assert!(rows.iter().all(|row| row.verdict.contains("x faster")), "{rows:?}");
        let rows = compare_many(&runs(1.0, 8), &runs(1.0, 8));
        assert!(rows.iter().all(|row| row.verdict.starts_with("no difference shown")), "{rows:?}");
        assert!(render_many(&rows).contains("rand-read-1"));
    }

    #[test]
    fn too_few_runs_show_nothing_and_say_how_many_would() {
        let rows = compare_many(&runs(1.0, 3), &runs(2.0, 3));
        assert_eq!(rows[0].verdict, "too few runs: 3 a side, and 4 comparisons need 5");
    }
}
