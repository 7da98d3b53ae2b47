//! Compares every row with the first of its job, round by round.

use super::Row;
use super::paired::Paired;
use super::verdict::{ALPHA, Verdict};

/// Fills in the ratio, its interval and the verdict of every row to the first row of its guest and job.
pub fn fill_ratios(rows: &mut [Row]) {
    let compared: Vec<(usize, &'static str, Paired)> = (0..rows.len())
        .filter_map(|n| {
            let same = |row: &Row| (&row.guest, &row.job) == (&rows[n].guest, &rows[n].job);
            let first = rows.iter().position(|row| same(row) && row.not_here.is_none())?;
            let (of, ratios) = per_round(&rows[first], &rows[n]);
            let paired = Paired::of(ratios)?;
            (first != n).then_some((n, of, paired))
        })
        .collect();
    for (n, row) in rows.iter_mut().enumerate() {
        let found = compared.iter().find(|(compared, ..)| *compared == n);
        let interval = found.and_then(|(.., paired)| paired.interval(ALPHA));
        let interval = interval.map(|(low, high)| (rounded(low), rounded(high))).unzip();
        row.ratio = found.map(|(.., paired)| rounded(paired.ratio()));
        row.ratio_of = found.map(|(_, of, _)| of.to_string());
        (row.ratio_low, row.ratio_high) = interval;
        row.verdict = found.map(|(.., paired)| Verdict::of(paired, compared.len()).to_string());
    }
}

/// Rounded to a millionth; more digits would have no meaning.
fn rounded(ratio: f64) -> f64 {
    (ratio * 1e6).round() / 1e6
}

/// One ratio per round, above 1 where `this` is faster: of the medians if requests go one at a time (the IOPS are a mean,
/// and one stall decides them), else of the IOPS.
pub(super) fn per_round(first: &Row, this: &Row) -> (&'static str, Vec<f64>) {
    let pairs = |a: &[Option<f64>], b: &[Option<f64>]| {
        let pairs = a.iter().zip(b);
        pairs.filter_map(|(a, b)| Some((*a)? / (*b)?)).filter(|r| r.is_finite() && *r > 0.0).collect()
    };
    match this.depth {
        Some(1) => ("p50", pairs(&first.round_p50_ns, &this.round_p50_ns)),
        _ => ("iops", pairs(&this.round_iops, &first.round_iops)),
    }
}

#[cfg(test)]
#[path = "ratios_tests.rs"]
mod tests;
