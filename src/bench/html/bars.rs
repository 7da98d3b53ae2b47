//! One bar per row: p50 and p99 at depth 1; IOPS and the fastest round at other depths.

use std::fmt::Write;

use super::scale::{linear, rate, time};
use super::{FLOOR, colour, escape, name};
use crate::bench::Row;

/// The quantity that a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Latency,
    Iops,
}

struct Bar<'a> {
    row: &'a Row,
    value: f64,
    /// The end of the line behind the bar.
    whisker: Option<f64>,
    /// The floor of its kind.
    stand: Option<f64>,
}

/// The chart of one job; `floors` are shown above its rows.
pub fn chart(rows: &[&Row], floors: &[&Row]) -> String {
    let deep = rows.iter().any(|row| row.depth.is_some_and(|depth| depth > 1));
    let measure = if deep { Measure::Iops } else { Measure::Latency };
    let bars: Vec<_> = floors.iter().chain(rows).filter_map(|row| bar(row, measure)).collect();
    if bars.is_empty() {
        return String::new();
    }
    // A bar is cut at 4 medians, so that a few slow rows do not make all others too short to read.
    let mut values: Vec<f64> = bars.iter().map(|bar| bar.value).collect();
    values.sort_by(f64::total_cmp);
    let (largest, median) = (values[values.len() - 1], values[values.len() / 2]);
    let (end, step) = linear(match measure {
        Measure::Latency => (1.25 * largest).min(4.0 * median),
        Measure::Iops => bars.iter().filter_map(|bar| bar.whisker).fold(largest, f64::max),
    });
    let mut out = format!("<div class=\"bars\" style=\"--step:{:.4}%\">\n", 100.0 * step / end);
    for (n, bar) in bars.iter().enumerate() {
        if n > 0 && group(bars[n - 1].row) != group(bar.row) {
            out += "<div class=\"gap\"></div>\n";
        }
        out += &one(bar, measure, end);
    }
    let stands = bars.iter().any(|bar| bar.stand.is_some());
    out += &axis(measure, stands, end, step);
    out + "</div>\n"
}

fn bar(row: &Row, measure: Measure) -> Option<Bar<'_>> {
    let whole = |ns: Option<u64>| ns.map(|ns| ns as f64);
    match measure {
        Measure::Latency => {
            let (value, whisker, stand) = (whole(row.p50_ns)?, whole(row.p99_ns), whole(row.floor_p50_ns));
            Some(Bar { row, value, whisker, stand })
        }
        Measure::Iops => {
            let fastest = row.round_iops.iter().flatten().copied().max_by(f64::total_cmp);
            Some(Bar { row, value: row.iops?, whisker: fastest, stand: None })
        }
    }
}

/// The key of a group of rows: everything but the complete path.
fn group(row: &Row) -> impl PartialEq + '_ {
    let floor = row.job == FLOOR;
    let alike = (&row.notify, &row.backend, row.poll_us, row.queues, &row.moderate, &row.ring);
    (floor, &row.peer, (!floor).then_some(alike))
}

fn one(bar: &Bar<'_>, measure: Measure, end: f64) -> String {
    let percent = |value: f64| 100.0 * (value / end).clamp(0.0, 1.0);
    let mut track =
        format!("<div class=\"fill {}\" style=\"width:{:.2}%\"></div>", colour(bar.row), percent(bar.value));
    let beyond = bar.whisker.unwrap_or(0.0).max(bar.value) > end;
    if let Some(whisker) = bar.whisker.filter(|&whisker| whisker > bar.value || beyond) {
        let (from, to) = (percent(bar.value), percent(whisker.max(bar.value)));
        // A cut bar has its arrow inside.
        let from = if beyond { from.min(98.0) } else { from };
        let cut = if beyond { " cut" } else { "" };
        let _ = write!(
            track,
            "<div class=\"whisker{cut}\" style=\"left:{from:.2}%;width:{:.2}%\"></div>",
            to - from
        );
    }
    if let Some(stand) = bar.stand.filter(|&stand| stand <= end) {
        let _ = write!(track, "<div class=\"stand\" style=\"left:{:.2}%\"></div>", percent(stand));
    }
    let value = match measure {
        Measure::Latency => {
            let p99 = bar.whisker.map_or(String::new(), |ns| format!(" p99 {}", time(ns)));
            format!("<b>{}</b>{p99}", time(bar.value))
        }
        Measure::Iops => {
            let p50 = bar.row.p50_ns.map_or(String::new(), |ns| format!(" p50 {}", time(ns as f64)));
            format!("<b>{}</b>{p50}", rate(bar.value))
        }
    };
    let floor = if bar.row.job == FLOOR { "floor: " } else { "" };
    format!(
        "<div class=\"bar\"><div class=\"name\">{floor}{}</div><div class=\"track\">{track}</div>\
         <div class=\"value\">{value}</div></div>\n",
        escape(&name(bar.row))
    )
}

fn axis(measure: Measure, stands: bool, end: f64, step: f64) -> String {
    let steps = (end / step).round() as usize;
    let ticks: String = (0..=steps)
        .map(|n| {
            let value = n as f64 * step;
            let text = match (n, measure) {
                (0, _) => "0".to_string(),
                (_, Measure::Latency) => time(value),
                (_, Measure::Iops) => rate(value),
            };
            let side = if n == 0 {
                " first"
            } else if n == steps {
                " last"
            } else {
                ""
            };
            format!("<span class=\"tick{side}\" style=\"left:{:.2}%\">{text}</span>", 100.0 * value / end)
        })
        .collect();
    let unit = match measure {
        Measure::Latency if stands => "bar: p50, line: p99, dashes: its floor",
        Measure::Latency => "bar: p50, line: p99",
        Measure::Iops => "IOPS; line: fastest round",
    };
    format!(
        "<div class=\"bar axis\"><div class=\"name soft\">{unit}</div><div class=\"track\">{ticks}</div>\
         <div class=\"value\"></div></div>\n"
    )
}
