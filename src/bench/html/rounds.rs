//! Each round's ratio of a row to the first of its job as a dot, with the estimate and its interval behind them.

use std::fmt::Write;

use super::scale::LogScale;
use super::{colour, escape, name};
use crate::bench::Row;
use crate::bench::ratios::per_round;

const WIDTH: f64 = 480.0;
const RIGHT: f64 = 14.0;
const LEFT: f64 = 14.0;
const LINE: f64 = 34.0;
const AXIS: f64 = 22.0;

/// The chart of one job; empty if nothing was compared.
pub fn chart(rows: &[&Row]) -> String {
    let compared: Vec<_> = rows
        .iter()
        .filter(|row| row.ratio.is_some())
        .map(|row| (*row, per_round(rows[0], row).1))
        .filter(|(_, ratios)| !ratios.is_empty())
        .collect();
    if compared.is_empty() {
        return String::new();
    }
    let all = || {
        let ends = |row: &Row| [row.ratio_low, row.ratio_high].into_iter().flatten().collect::<Vec<_>>();
        compared.iter().flat_map(move |(row, ratios)| ratios.iter().copied().chain(ends(row)))
    };
    // The axis is that of times: thousandths of a ratio, so that its smallest value is above 1.
    let (low, high) =
        all().fold((0.9, 1.1), |(low, high): (f64, f64), ratio| (low.min(ratio), high.max(ratio)));
    let (low, high) = (low.max(0.02), high.min(50.0));
    let scale = LogScale::new(1e3 * low / 1.03, 1e3 * high * 1.03);
    let x = |ratio: f64| LEFT + scale.at(1e3 * ratio) * (WIDTH - RIGHT - LEFT);
    let height = LINE * compared.len() as f64 + AXIS;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Ratio of each round to the first row, {}\">\n",
        escape(&rows[0].job)
    );
    let bottom = height - AXIS;
    let ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0, 5.0, 10.0, 20.0, 50.0];
    let mut end = f64::MIN;
    for tick in ticks.into_iter().filter(|tick| (low / 1.03..=high * 1.03).contains(tick)) {
        let at = x(tick);
        let class = if tick == 1.0 { "base" } else { "grid" };
        let _ =
            write!(svg, "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom}\" />");
        if at - end > 34.0 || tick == 1.0 {
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
                height - 6.0
            );
            end = at;
        }
    }
    for (n, (row, ratios)) in compared.iter().enumerate() {
        let middle = LINE * n as f64 + 24.0;
        let class = colour(row);
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", middle - 11.0, escape(&name(row)));
        if let (Some(low), Some(high)) = (row.ratio_low, row.ratio_high) {
            let (from, to) = (x(low), x(high));
            let _ = write!(
                svg,
                "<line class=\"interval {class}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\" />"
            );
        }
        for (round, ratio) in ratios.iter().enumerate() {
            // Dots of rounds that follow each other do not cover each other.
            let (at, y) = (x(*ratio), middle + if round.is_multiple_of(2) { -3.0 } else { 3.0 });
            let _ = write!(svg, "<circle class=\"dot {class}\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"2.6\" />");
        }
        if let Some(ratio) = row.ratio {
            let (at, top, end) = (x(ratio), middle - 8.0, middle + 8.0);
            let _ = writeln!(
                svg,
                "<line class=\"estimate\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{end}\" />"
            );
        }
    }
    format!("<figure class=\"wide\">{svg}</svg>\n</figure>\n")
}
