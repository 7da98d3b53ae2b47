//! IOPS and p99 against the number of requests in flight, for jobs that differ in nothing else.

use std::fmt::Write;

use super::scale::{LogScale, level, linear, rate, time};
use super::{colour, escape, name};
use crate::bench::Row;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// Depths that make a curve.
const FEWEST: usize = 3;

/// One row at several depths: (depth, row).
type Curve<'a> = Vec<(u64, &'a Row)>;

/// The plots of a report; empty if no job has been run at [`FEWEST`] depths.
pub fn plots(rows: &[&Row]) -> String {
    let mut jobs: Vec<(String, Vec<(String, Curve<'_>)>)> = Vec::new();
    for row in rows {
        let Some(depth) = row.depth else { continue };
        let (job, path) = (without_depth(&row.job, depth), name(row));
        let at = jobs.iter().position(|(known, _)| *known == job).unwrap_or_else(|| {
            jobs.push((job, Vec::new()));
            jobs.len() - 1
        });
        match jobs[at].1.iter_mut().find(|(known, _)| *known == path) {
            Some((_, curve)) => curve.push((depth, row)),
            None => jobs[at].1.push((path, vec![(depth, row)])),
        }
    }
    let mut out = String::new();
    for (job, mut curves) in jobs {
        curves.retain(|(_, curve)| curve.len() >= FEWEST);
        curves.iter_mut().for_each(|(_, curve)| curve.sort_by_key(|&(depth, _)| depth));
        if curves.is_empty() {
            continue;
        }
        let iops = draw("IOPS", &job, &curves, |row| row.iops, false);
        let p99 = draw("p99", &job, &curves, |row| row.p99_ns.map(|ns| ns as f64), true);
        let _ = write!(out, "<h3>{}</h3>\n<div class=\"plots\">\n{iops}{p99}</div>\n", escape(&job));
    }
    out
}

/// "rand-read" of "rand-read-32", "randread" of "randread:32": the job without the word that is its depth.
fn without_depth(job: &str, depth: u64) -> String {
    let depth = depth.to_string();
    let words: Vec<_> = job.split_inclusive(['-', ':']).collect();
    let kept = words.iter().filter(|word| word.trim_end_matches(['-', ':']) != depth);
    kept.copied().collect::<String>().trim_end_matches(['-', ':']).to_string()
}

fn draw(
    what: &str,
    job: &str,
    curves: &[(String, Curve<'_>)],
    value: fn(&Row) -> Option<f64>,
    logarithmic: bool,
) -> String {
    let depths = || curves.iter().flat_map(|(_, curve)| curve.iter().map(|&(depth, _)| depth as f64));
    let values = || curves.iter().flat_map(|(_, curve)| curve.iter().filter_map(|(_, row)| value(row)));
    let (least, most) = (depths().fold(f64::MAX, f64::min), depths().fold(0.0, f64::max));
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    if high == 0.0 {
        return String::new();
    }
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let across = LogScale::new(least, most);
    let x = |depth: f64| LEFT + across.at(depth) * (right - LEFT);
    let (up, (end, step)) = (LogScale::new(0.9 * low, 1.1 * high), linear(high));
    let y = |value: f64| bottom - if logarithmic { up.at(value) } else { value / end } * (bottom - TOP);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{what} against depth, {}\">\n",
        escape(job)
    );
    let steps = (end / step).round() as usize;
    let ticks = if logarithmic { up.ticks() } else { (0..=steps).map(|n| n as f64 * step).collect() };
    for tick in ticks {
        let (at, text) = (y(tick), if logarithmic { time(tick) } else { rate(tick) });
        level(&mut svg, "grid", (LEFT, right), at, &text);
    }
    let mut all: Vec<u64> =
        curves.iter().flat_map(|(_, curve)| curve.iter().map(|&(depth, _)| depth)).collect();
    all.sort_unstable();
    all.dedup();
    for depth in all {
        let at = x(depth as f64);
        let _ =
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{depth}</text>", HEIGHT - 8.0);
    }
    let mut legends = String::new();
    for (n, (path, curve)) in curves.iter().enumerate() {
        // Several rows of one colour: each has its own then.
        let same = curves.iter().filter(|(_, other)| colour(other[0].1) == colour(curve[0].1)).count() > 1;
        let class = if same { format!("k{}", n % 6) } else { colour(curve[0].1).to_string() };
        let points: Vec<_> =
            curve.iter().filter_map(|(depth, row)| Some((x(*depth as f64), y(value(row)?)))).collect();
        let mut line = String::new();
        for (n, (x, y)) in points.iter().enumerate() {
            let _ = write!(line, "{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' });
            let _ = write!(svg, "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" />");
        }
        let _ = writeln!(svg, "<path class=\"step {class}\" d=\"{line}\" />");
        let _ = write!(legends, "<span><i class=\"{class}\"></i>{}</span>", escape(path));
    }
    format!("<figure><h4>{what}</h4>\n{svg}</svg>\n<figcaption>{legends}</figcaption></figure>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_its_depth_is_the_same_at_every_depth() {
        let cases = [
            ("rand-read-32", 32, "rand-read"),
            ("randrw:8:bs=8k", 8, "randrw:bs=8k"),
            ("read-512-1", 1, "read-512"),
        ];
        for (job, depth, wanted) in cases {
            assert_eq!(without_depth(job, depth), wanted);
        }
    }
}
