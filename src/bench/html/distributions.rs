//! Small plots of request latencies, several rows and their floor in each.

use std::fmt::Write;

use super::scale::{LogScale, level, time};
use super::{FLOOR, colour, escape, name};
use crate::bench::{Buckets, Row};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 42.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// Most lines in a plot; more could not be distinguished.
const MOST: usize = 5;

/// A line of a plot.
pub(super) struct Series<'a> {
    pub(super) row: &'a Row,
    pub(super) label: String,
    pub(super) class: String,
}

/// Rows that are shown together.
pub(super) struct Plot<'a> {
    pub(super) title: String,
    pub(super) series: Vec<Series<'a>>,
    floor: Option<&'a Row>,
}

/// The plots of one job; empty if no row has a distribution. `floors` holds those of all ways of waiting.
pub fn plots(rows: &[&Row], floors: &[&Row]) -> String {
    let plots = groups(rows, floors);
    if plots.is_empty() {
        return String::new();
    }
    let drawn = plots.iter().flat_map(|plot| plot.series.iter().map(|series| series.row).chain(plot.floor));
    let scale = common_scale(&drawn.collect::<Vec<_>>());
    let plots: String = plots.iter().map(|plot| draw(plot, &scale)).collect();
    format!("<div class=\"plots\">\n{plots}</div>\n")
}

/// The rows of one job that have a distribution, in groups that are shown together.
pub(super) fn groups<'a>(rows: &[&'a Row], floors: &[&'a Row]) -> Vec<Plot<'a>> {
    let rows: Vec<_> = rows.iter().copied().filter(|row| shape(row).is_some()).collect();
    if rows.iter().any(|row| row.job == FLOOR) { of_floors(&rows) } else { of_paths(&rows, floors) }
}

/// The share of the requests in each bucket.
pub(super) fn shape(row: &Row) -> Option<Vec<(u32, f64)>> {
    let list = row.histogram.as_ref().filter(|list| !list.is_empty())?;
    let all = list.iter().map(|&(_, count)| count as f64).sum::<f64>();
    (all > 0.0).then(|| list.iter().map(|&(ns, count)| (Buckets::number(ns), count as f64 / all)).collect())
}

/// One plot per notify path, backend and way of waiting, one line per complete path. Single rows share plots.
fn of_paths<'a>(rows: &[&'a Row], floors: &[&'a Row]) -> Vec<Plot<'a>> {
    let key = |row: &Row| {
        let how = (row.wait.clone(), row.poll_us, row.queues, row.moderate.clone(), row.ring.clone());
        (row.peer.clone(), row.notify.clone(), row.backend.clone(), how)
    };
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for &row in rows {
        match groups.iter_mut().find(|group| key(group[0]) == key(row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let (many, single): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.len() > 1);
    let mut plots: Vec<_> = many
        .into_iter()
        .map(|group| {
            let series = group.iter().take(MOST).map(|row| Series {
                row,
                label: row.complete.clone().unwrap_or_else(|| name(row)),
                class: colour(row).into(),
            });
            Plot { title: title(group[0]), floor: floor_of(group[0], floors), series: series.collect() }
        })
        .collect();
    for rows in single.concat().chunks(MOST) {
        let series =
            rows.iter().enumerate().map(|(n, row)| Series { row, label: name(row), class: format!("k{n}") });
        let title = if plots.is_empty() { "all" } else { "other backends and VMMs" };
        plots.push(Plot { title: title.into(), floor: floor_of(rows[0], floors), series: series.collect() });
    }
    plots
}

/// One plot of the ways to interrupt, and one of the ways to wait.
fn of_floors<'a>(rows: &[&'a Row]) -> Vec<Plot<'a>> {
    let plot = |title: &str, rows: Vec<&'a Row>, label: fn(&Row) -> Option<String>, by_place: bool| {
        let series = rows.into_iter().take(MOST).enumerate().map(|(n, row)| Series {
            row,
            label: label(row).unwrap_or_default(),
            class: if by_place { format!("k{n}") } else { path_colour(row).into() },
        });
        Plot { title: title.into(), series: series.collect(), floor: None }
    };
    let first = rows.first().and_then(|row| row.complete.clone());
    let wait = rows.first().and_then(|row| row.wait.clone());
    let answers: Vec<_> = rows.iter().copied().filter(|row| row.wait == wait).collect();
    let waits: Vec<_> = rows.iter().copied().filter(|row| row.complete == first).collect();
    let by_answer = format!("{}, by answer", wait.unwrap_or_default());
    let by_wait = format!("{}, by way of waiting", first.unwrap_or_default());
    let plots = [
        plot(&by_answer, answers, |row| row.complete.clone(), false),
        plot(&by_wait, waits, |row| row.wait.clone(), true),
    ];
    plots.into_iter().filter(|plot| !plot.series.is_empty()).collect()
}

fn path_colour(row: &Row) -> &'static str {
    colour(&Row { job: String::new(), ..row.clone() })
}

fn title(row: &Row) -> String {
    let polls = row.poll_us.filter(|&us| us > 0).map(|us| format!("polls {us} \u{b5}s"));
    let moderated = row.moderate.as_ref().filter(|how| *how != "off").map(|how| format!("moderate={how}"));
    let packed = row.ring.as_ref().filter(|ring| *ring == "packed").map(|_| "packed ring".into());
    let parts = [row.peer.clone(), row.notify.clone(), row.backend.clone(), polls, moderated, packed];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The floor that waits as `row` does; only at depth 1, where a request is one round trip.
fn floor_of<'a>(row: &Row, floors: &[&'a Row]) -> Option<&'a Row> {
    let fits = |floor: &&&Row| row.depth == Some(1) && floor.wait == row.wait && shape(floor).is_some();
    floors.iter().find(fits).copied()
}

/// One axis for all plots, from the fastest request to a time below which nearly all requests of most rows are.
fn common_scale(rows: &[&Row]) -> LogScale {
    let quantile = |row: &&Row, q: f64| -> f64 {
        let mut sum = 0.0;
        let shape = shape(row).unwrap_or_default();
        let at = shape.iter().find(|&&(_, share)| {
            sum += share;
            sum >= q
        });
        at.or(shape.last()).map_or(1.0, |&(n, _)| Buckets::bound(n) as f64)
    };
    let mut medians: Vec<_> = rows.iter().map(|row| quantile(row, 0.5)).collect();
    medians.sort_by(f64::total_cmp);
    let median = medians[medians.len() / 2];
    let low = rows.iter().map(|row| quantile(row, 0.001)).fold(f64::MAX, f64::min);
    let high = rows.iter().map(|row| quantile(row, 0.99)).fold(0.0, f64::max);
    LogScale::new(0.85 * low, (1.3 * high).min(10.0 * median))
}

fn draw(plot: &Plot<'_>, scale: &LogScale) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |ns: f64| LEFT + scale.at(ns) * (right - LEFT);
    let all = plot.series.iter().map(|series| series.row).chain(plot.floor);
    let visible = |row: &Row| -> Vec<(u32, f64)> {
        let shape = shape(row).unwrap_or_default();
        shape.into_iter().filter(|&(n, _)| (Buckets::bound(n) as f64) < scale.high).collect()
    };
    let peak =
        all.clone().flat_map(|row| visible(row).into_iter().map(|(_, share)| share)).fold(0.0, f64::max);
    let (top, step) = super::scale::linear(100.0 * peak);
    let y = |share: f64| bottom - 100.0 * share / top * (bottom - TOP);

    let said = plot.series.iter().map(|series| series.label.clone()).collect::<Vec<_>>().join(", ");
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Distribution of latencies, {}: {}\">\n",
        escape(&plot.title),
        escape(&said)
    );
    let mut percent = 0.0;
    while percent <= top + step / 2.0 {
        let at = y(percent / 100.0);
        let class = if percent == 0.0 { "base" } else { "grid" };
        let text = format!("{} %", (percent * 10.0).round() / 10.0);
        level(&mut svg, class, (LEFT, right), at, &text);
        percent += step;
    }
    for tick in scale.ticks() {
        let (at, text) = (x(tick), time(tick));
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" />");
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            at.min(right - 14.0),
            HEIGHT - 8.0
        );
    }
    if let Some(floor) = plot.floor {
        let outline = outline(&visible(floor), &x, &y);
        let _ = writeln!(svg, "<path class=\"floor\" d=\"{outline}Z\" />");
    }
    for series in &plot.series {
        let outline = outline(&visible(series.row), &x, &y);
        let _ = writeln!(svg, "<path class=\"step {}\" d=\"{outline}\" />", series.class);
        if let Some(p50) = series.row.p50_ns.filter(|&ns| (ns as f64) < scale.high) {
            let (at, end) = (x(p50 as f64), bottom + 7.0);
            let _ = writeln!(
                svg,
                "<line class=\"median {}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{end}\" />",
                series.class
            );
        }
    }
    svg += "</svg>\n";
    let beyond = |row: &Row| {
        let inside: f64 = visible(row).iter().map(|&(_, share)| share).sum();
        // A smaller share would not be visible in the plot.
        if inside < 0.995 { format!(", {:.0} % beyond", 100.0 * (1.0 - inside)) } else { String::new() }
    };
    let legend = |class: &str, label: &str, row: &Row| {
        let p50 = row.p50_ns.map_or(String::new(), |ns| time(ns as f64));
        format!("<span><i class=\"{class}\"></i>{} <b>{p50}</b>{}</span>", escape(label), beyond(row))
    };
    let mut legends: String =
        plot.series.iter().map(|series| legend(&series.class, &series.label, series.row)).collect();
    legends.extend(plot.floor.map(|floor| legend("floor", "floor", floor)));
    format!("<figure><h4>{}</h4>\n{svg}<figcaption>{legends}</figcaption></figure>\n", escape(&plot.title))
}

/// A line of steps over buckets; it falls to zero between buckets that are not neighbours.
fn outline(shape: &[(u32, f64)], x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut end = None;
    for &(n, share) in shape {
        let (left, right) = (x(Buckets::bound(n) as f64), x(Buckets::bound(n + 1) as f64));
        if end != Some(n) {
            match end {
                None => _ = write!(path, "M{left:.1} {:.1}", y(0.0)),
                Some(_) => _ = write!(path, "V{:.1}H{left:.1}", y(0.0)),
            }
        }
        let _ = write!(path, "V{:.1}H{right:.1}", y(share));
        end = Some(n + 1);
    }
    if end.is_some() {
        let _ = write!(path, "V{:.1}", y(0.0));
    }
    path
}
