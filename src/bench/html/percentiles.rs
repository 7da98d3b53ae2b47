//! Latency against the share of requests that took no longer, on the axis of HdrHistogram: each nine is as wide as the next.

use std::fmt::Write;

use super::distributions::{Plot, groups, shape};
use super::escape;
use super::scale::{LogScale, level, time};
use crate::bench::{Buckets, Row};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// One of so many requests takes longer; its name.
const TICKS: [(f64, &str); 6] =
    [(1.0, "0 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")];

/// The plots of one job; empty if no row has a distribution.
pub fn plots(rows: &[&Row], floors: &[&Row]) -> String {
    let plots: String = groups(rows, floors).iter().filter_map(draw).collect();
    if plots.is_empty() { plots } else { format!("<div class=\"plots\">\n{plots}</div>\n") }
}

/// (one of so many takes longer, latency), as far as ten requests stand behind it.
fn curve(row: &Row) -> Vec<(f64, f64)> {
    let requests: u64 = row.histogram.iter().flatten().map(|&(_, count)| count).sum();
    let mut below = 0.0;
    let mut points = Vec::new();
    for (n, share) in shape(row).unwrap_or_default() {
        let one_of = |below: f64| 1.0 / (1.0 - below).max(1e-12);
        points.push((one_of(below), Buckets::bound(n) as f64));
        below += share;
        if one_of(below) > requests as f64 / 10.0 {
            break;
        }
        points.push((one_of(below), Buckets::bound(n + 1) as f64));
    }
    points
}

fn draw(plot: &Plot<'_>) -> Option<String> {
    let curves: Vec<_> = plot.series.iter().map(|series| (series, curve(series.row))).collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let most = points().map(|&(one_of, _)| one_of).fold(0.0, f64::max);
    if most < 10.0 {
        return None;
    }
    let (low, high) = points().fold((f64::MAX, 0.0f64), |(low, high), &(_, ns)| (low.min(ns), high.max(ns)));
    let scale = LogScale::new(0.9 * low, 1.1 * high);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |one_of: f64| LEFT + one_of.log10() / most.log10() * (right - LEFT);
    let y = |ns: f64| bottom - scale.at(ns) * (bottom - TOP);
    let said = plot.series.iter().map(|series| series.label.clone()).collect::<Vec<_>>().join(", ");
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Latency by percentile, {}: {}\">\n",
        escape(&plot.title),
        escape(&said)
    );
    for (at, name) in TICKS.into_iter().filter(|&(one_of, _)| one_of <= most) {
        let at = x(at);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" />");
        let text = at.clamp(LEFT + 8.0, right - 18.0);
        let _ = writeln!(
            svg,
            "<text x=\"{text:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            HEIGHT - 8.0
        );
    }
    for tick in scale.ticks() {
        let (at, text) = (y(tick), time(tick));
        level(&mut svg, "grid", (LEFT, right), at, &text);
    }
    for (series, curve) in &curves {
        let mut path = String::new();
        for (n, &(one_of, ns)) in curve.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, x(one_of), y(ns));
        }
        let _ = writeln!(svg, "<path class=\"step {}\" d=\"{path}\" />", series.class);
    }
    svg += "</svg>\n";
    let legend = |series: &super::distributions::Series<'_>| {
        let p99 = series.row.p99_ns.map_or(String::new(), |ns| format!("p99 <b>{}</b>", time(ns as f64)));
        format!("<span><i class=\"{}\"></i>{} {p99}</span>", series.class, escape(&series.label))
    };
    let legends: String = plot.series.iter().map(legend).collect();
    Some(format!(
        "<figure><h4>{}</h4>\n{svg}<figcaption>{legends}</figcaption></figure>\n",
        escape(&plot.title)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_fewer_than_ten_requests_are_beyond_it() {
        let row = Row { histogram: Some(vec![(1000, 900), (10_000, 95), (100_000, 5)]), ..Row::default() };
        let curve = curve(&row);
        let last = curve.last().unwrap();
        assert!((curve[1].0 - 10.0).abs() < 1e-6, "90 % are in the first bucket: {curve:?}");
        assert!(last.0 < 100.0 && last.1 <= 10_000.0, "{curve:?}");
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{curve:?}");
    }
}
