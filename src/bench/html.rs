//! A report as one self-contained HTML page: no font, no other file, no network. Its one script sorts tables; everything else
//! is there without it. The JSON is inside, for programs (`#report`).
//!
//! Charts are plain HTML and SVG with classes, so one style sheet adapts them to light or dark colours and to the width
//! of a phone. A plotting library would fix both when the page is made.

mod bars;
mod date;
mod depths;
mod distributions;
mod facts;
mod parts;
mod percentiles;
mod rounds;
mod scale;

use std::fmt::Write;

use super::noise::noise;
use super::row_name::{FLOOR, row_name as name};
use super::table::{COUNTS, Column, TIMES, warnings};
use super::verdict::{Verdicts, verdicts};
use super::{Report, Row, to_json};
use scale::{rate, time};

const STYLE: &str = include_str!("html/style.css");
const SORT: &str = include_str!("html/sort.js");
const READING: &str = include_str!("html/reading.html");

/// The page.
pub fn render_html(report: &Report) -> String {
    let here: Vec<&Row> = report.rows.iter().filter(|row| row.not_here.is_none()).collect();
    let floors: Vec<&Row> = here.iter().copied().filter(|row| row.job == FLOOR).collect();
    let mut body = format!(
        "<h1>doorbell bench</h1>\n<p class=\"soft\">{}<br />{}</p>\n",
        escape(&report.host.sentence()),
        escape(&how(report))
    );
    body += &conclusions(&report.rows);
    let incomplete = report.run.incomplete.iter().map(|why| format!("incomplete: {why}"));
    let noisy = Some(noise(report)).filter(|signs| !signs.is_empty());
    let noisy = noisy.map(|signs| format!("noisy: {}", signs.join("; ")));
    for line in incomplete.chain(noisy).chain(warnings(&report.rows)) {
        let _ = writeln!(body, "<p class=\"warn\">{}</p>", escape(&line));
    }
    let jobs = jobs(&here);
    body += &tiles(report, &jobs);
    let by_round = of_jobs(&jobs, rounds::chart);
    if !by_round.is_empty() {
        body += "<h2>Round by round</h2>\n";
        body += "<p class=\"soft\">A dot is one round: the row against the first of its job, above 1 is faster. The bar is the 95 % interval \
                 of this ratio alone, the mark its estimate. Only a verdict names a difference.</p>\n";
        body += &by_round;
    }
    let depths = depths::plots(&here);
    if !depths.is_empty() {
        body += "<h2>Against depth</h2>\n";
        body += &depths;
    }
    body += "<h2>Round trips</h2>\n";
    for job in jobs.iter().filter(|job| job[0].job != FLOOR) {
        let deep = job[0].depth.is_some_and(|depth| depth > 1);
        let chart = bars::chart(job, if deep { &[] } else { &floors });
        if !chart.is_empty() {
            let _ = write!(body, "<h3>{}</h3>\n{chart}", escape(&job_title(job[0])));
        }
    }
    let plots = of_jobs(&jobs, |job| distributions::plots(job, &floors));
    if !plots.is_empty() {
        body += "<h2>Distributions</h2>\n";
        body += "<p class=\"soft\">Share of requests (up) by how long they took (right, logarithmic); the bold number is the median.</p>\n";
        body += &plots;
    }
    let percentiles = of_jobs(&jobs, |job| percentiles::plots(job, &floors));
    if !percentiles.is_empty() {
        body += "<h2>Percentiles</h2>\n";
        body += "<p class=\"soft\">How long (up, logarithmic) the fastest share of the requests (right) took at most; each nine is as wide as \
                 the next. A line ends where fewer than ten requests are beyond it.</p>\n";
        body += &percentiles;
    }
    let stacks = of_jobs(&jobs, parts::stacks);
    if !stacks.is_empty() {
        body += "<h2>Kick, device, interrupt</h2>\n";
        body += "<p class=\"soft\">Medians of the two notifications; the device has the rest of the median round trip.</p>\n";
        body += &stacks;
    }
    let counts = of_jobs(&jobs, parts::counts);
    if !counts.is_empty() {
        body += "<h2>Per request</h2>\n";
        body += "<p class=\"soft\">Counts do not move with the machine's load; the CPU time of the I/O thread does.</p>\n";
        body += &counts;
    }
    body += "<h2>Figures</h2>\n<p class=\"soft\">A click on a heading sorts.</p>\n<h3>Times</h3>\n";
    body += &figures(&here, TIMES);
    body += "<h3>Counts</h3>\n";
    body += &figures(&here, COUNTS);
    body += "<h2>Where and how</h2>\n";
    body += &facts::table(report);
    body += "<h2>How to read it</h2>\n";
    body += READING;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n<title>doorbell bench</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <script type=\"application/json\" id=\"report\">\n{}</script>\n<script>\n{SORT}</script>\n</body>\n</html>\n",
        // So that no text in it can end the element.
        to_json(report).replace('<', "\\u003c")
    )
}

/// What `chart` makes of each job, under the job's title.
fn of_jobs(jobs: &[Vec<&Row>], chart: impl Fn(&[&Row]) -> String) -> String {
    let charts = jobs.iter().map(|job| (job[0], chart(job))).filter(|(_, chart)| !chart.is_empty());
    charts.map(|(first, chart)| format!("<h3>{}</h3>\n{chart}", escape(&job_title(first)))).collect()
}

fn how(report: &Report) -> String {
    let run = &report.run;
    let rounds = if run.rounds == 1 { "1 round".into() } else { format!("{} rounds", run.rounds) };
    format!(
        "{}, {rounds}, paths in turn, took {:.0} s; doorbell {}",
        date::utc(run.started_unix),
        run.took_s,
        report.host.doorbell
    )
}

/// The rows grouped by guest and job, in the order in which the jobs first appear.
fn jobs<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let mut jobs: Vec<Vec<&Row>> = Vec::new();
    for &row in rows {
        match jobs.iter_mut().find(|job| (&job[0].guest, &job[0].job) == (&row.guest, &row.job)) {
            Some(job) => job.push(row),
            None => jobs.push(vec![row]),
        }
    }
    jobs
}

fn job_title(row: &Row) -> String {
    match (row.job.as_str(), row.depth) {
        (FLOOR, _) => "The floor: no virtio, only kick and interrupt".into(),
        (job, Some(1)) => format!("{job}: one request at a time"),
        (job, Some(depth)) => format!("{job}: {depth} requests in flight"),
        (job, None) => job.into(),
    }
}

/// The CSS class for the colour of a row: one per complete path, grey for floors, one for the reference VMM.
fn colour(row: &Row) -> &'static str {
    match (row.job.as_str(), row.peer.as_deref(), row.complete.as_deref()) {
        (FLOOR, ..) => "floor",
        (_, Some(_), _) => "k5",
        (_, _, Some("irqfd")) => "k0",
        (_, _, Some("signal-msi")) => "k1",
        (_, _, Some("irq-line")) => "k2",
        (_, _, Some("resample")) => "k3",
        _ => "k4",
    }
}

/// The verdicts, which come before all figures.
fn conclusions(rows: &[Row]) -> String {
    let job = |job: &Verdicts| {
        let line =
            |(name, verdict): &(String, String)| format!("<li>{}: {}</li>\n", escape(name), escape(verdict));
        let lines: String = job.rows.iter().map(line).collect();
        format!("<h3>{}</h3>\n<ul>\n{lines}</ul>\n", escape(&job.heading))
    };
    let jobs: String = verdicts(rows).iter().map(job).collect();
    if jobs.is_empty() { jobs } else { format!("<h2>Verdicts</h2>\n{jobs}") }
}

/// Tiles with single figures: of each job's first row, to which the others are compared, and of the VM's start.
fn tiles(report: &Report, jobs: &[Vec<&Row>]) -> String {
    let mut tiles: Vec<(String, String)> = Vec::new();
    for first in jobs.iter().map(|job| job[0]).filter(|row| row.job != FLOOR) {
        let text = |what: &str| format!("{what}, {}: {}", first.job, name(first));
        tiles.extend(match first.depth {
            Some(1) => first.p50_ns.map(|ns| (time(ns as f64), text("median of a request"))),
            _ => first.iops.map(|iops| (rate(iops), text("IOPS"))),
        });
    }
    let run = &report.run;
    let started = "from the construction of a VM to its guest's first instruction".to_string();
    tiles.extend(run.first_instruction_ns.map(|ns| (time(ns as f64), started)));
    let memory = "resident beyond guest RAM, one disk".to_string();
    tiles.extend(run.resident_bytes.map(|bytes| (format!("{:.1} MiB", bytes as f64 / 1_048_576.0), memory)));
    let tile = |(number, text): &(String, String)| {
        format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(number), escape(text))
    };
    let tiles: String = tiles.iter().map(tile).collect();
    if tiles.is_empty() { tiles } else { format!("<div class=\"tiles\">\n{tiles}</div>\n") }
}

fn figures(rows: &[&Row], columns: &[Column]) -> String {
    let columns: Vec<_> = columns.iter().filter(|column| column.is_in(rows)).collect();
    let head: String =
        columns.iter().map(|c| format!("<th>{}</th>", escape(c.heading).replace('\n', "<br />"))).collect();
    let mut out =
        format!("<div class=\"scroll\"><table>\n<thead><tr><th>row</th>{head}</tr></thead>\n<tbody>\n");
    for (n, row) in rows.iter().enumerate() {
        let begins = n > 0 && rows[n - 1].job != row.job;
        let cells: String = columns.iter().map(|c| format!("<td>{}</td>", escape(&(c.text)(row)))).collect();
        let class = if begins { " class=\"begin\"" } else { "" };
        let _ = writeln!(out, "<tr{class}><td>{}: {}</td>{cells}</tr>", escape(&row.job), escape(&name(row)));
    }
    out + "</tbody>\n</table></div>\n"
}

/// Escapes `text` for HTML, also in attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
