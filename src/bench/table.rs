//! A report as text.

use super::checks::failed_checks;
use super::noise::noise;
use super::report::per_request;
use super::row_name::of_filter;
use super::verdict::{tells_apart, verdicts};
use super::{Report, Row};
use crate::observe::text::{narrow_table, table};

/// One column: its heading, and the text of a row in it.
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) text: fn(&Row) -> String,
    /// Left out if no row has a value.
    pub(super) optional: bool,
    /// Left out without a reference VMM.
    with_peers: bool,
    /// Shown only with [`Look::wide`].
    wide: bool,
}

/// How a report is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Every column, however wide the lines become. Otherwise they have about 100 characters.
    pub wide: bool,
    /// Verdicts that find a difference stand out, by a terminal's escape sequences.
    pub bold: bool,
}

impl Column {
    /// Whether a table of `rows` has it.
    pub(super) fn is_in(&self, rows: &[&Row]) -> bool {
        let any_value = || rows.iter().any(|row| (self.text)(row) != NONE);
        (!self.optional || any_value()) && (!self.with_peers || rows.iter().any(|row| row.peer.is_some()))
    }
}

const fn column(heading: &'static str, text: fn(&Row) -> String) -> Column {
    Column { heading, text, optional: false, with_peers: false, wide: false }
}

const fn optional(heading: &'static str, text: fn(&Row) -> String) -> Column {
    Column { heading, text, optional: true, with_peers: false, wide: false }
}

const fn with_peers(heading: &'static str, text: fn(&Row) -> String) -> Column {
    Column { heading, text, optional: true, with_peers: true, wide: false }
}

const fn wide(column: Column) -> Column {
    Column { wide: true, ..column }
}

/// The cell of a value that was not measured.
pub(super) const NONE: &str = "-";

pub(super) const TIMES: &[Column] = &[
    column("IOPS", |r| r.iops.map_or(NONE.into(), grouped)),
    column("ratio (95 %)", ratio),
    wide(optional("min us", |r| micros(r.min_ns.map(|ns| ns as f64)))),
    wide(column("mean us", |r| micros(r.mean_ns))),
    column("p50 us", |r| micros(r.p50_ns.map(|ns| ns as f64))),
    wide(optional("p90 us", |r| micros(r.p90_ns.map(|ns| ns as f64)))),
    column("p99 us", |r| micros(r.p99_ns.map(|ns| ns as f64))),
    wide(column("p99.9 us", |r| micros(r.p999_ns.map(|ns| ns as f64)))),
    optional("kick\nus", |r| micros(r.kick_p50_ns.map(|ns| ns as f64))),
    optional("interrupt\nus", |r| micros(r.interrupt_p50_ns.map(|ns| ns as f64))),
    wide(optional("to the floor", |r| r.floor_ratio.map_or(NONE.into(), |x| format!("{x:.2}")))),
];

pub(super) const COUNTS: &[Column] = &[
    wide(column("requests", |r| count(r.requests))),
    wide(column("interrupts", |r| count(r.interrupts))),
    column("requests/\ninterrupt", |r| two(per_request(r.requests, r.interrupts))),
    // What a reference VMM sends is not known, what its guest takes is.
    with_peers("interrupts\ntaken/req", |r| two(per_request(r.guest_interrupts, r.requests))),
    column("kicks/req\nioeventfd", |r| two(per_request(r.kicks_ioeventfd, r.requests))),
    column("kicks/req\nexit", |r| two(per_request(r.kicks_exit, r.requests))),
    column("exits\n/req", |r| two(per_request(r.exits, r.requests))),
    column("to VMM\n/req", |r| two(per_request(r.exits_to_user, r.requests))),
    wide(optional("holds", |r| r.holds.filter(|&n| n > 0).map_or(NONE.into(), |n| count(Some(n))))),
    wide(optional("failed\nholds", |r| {
        r.holds_failed.filter(|&n| n > 0).map_or(NONE.into(), |n| count(Some(n)))
    })),
    column("syscalls\n/req", |r| two(per_request(r.iothread_syscalls, r.requests))),
    optional("CPU us\n/req", |r| two(r.io_thread_cpu_ns_per_request.map(|ns| ns / 1000.0))),
];

/// A part of a row's name.
type Name = (&'static str, fn(&Row) -> Option<String>);

/// A value that differs between rows is a column of the table; one that all rows share is printed once, above the table.
const NAMES: &[Name] = &[
    ("guest", |r| Some(r.guest.clone())),
    ("peer", |r| r.peer.clone()),
    ("notify", |r| r.notify.clone()),
    ("complete", |r| r.complete.clone()),
    ("wait", |r| r.wait.clone()),
    ("backend", |r| r.backend.clone()),
    ("device", |r| r.device.clone()),
    ("queues", |r| r.queues.map(|n| n.to_string())),
    ("poll us", |r| r.poll_us.map(|n| n.to_string())),
    ("moderate", |r| r.moderate.clone()),
    ("ring", |r| r.ring.clone()),
];

/// Columns that do not apply to passed-through devices. A missing value there does not make the column appear.
const OF_DISKS: [&str; 5] = ["wait", "queues", "poll us", "moderate", "ring"];

/// The report as lines of text: what all rows share, times, counts, verdicts, the host, and warnings.
pub fn render(report: &Report, look: Look) -> String {
    let rows = &report.rows;
    let differs = |(heading, name): &Name| {
        let has = |row: &&Row| row.device.is_none() || !OF_DISKS.contains(heading);
        let mut values = rows.iter().filter(has).map(name);
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let (names, common): (Vec<Name>, Vec<Name>) = NAMES.iter().copied().partition(differs);
    let mut lines = vec![heading(report, &common)];
    let here: Vec<_> = rows.iter().filter(|row| row.not_here.is_none()).collect();
    lines.extend([TIMES, COUNTS].map(|columns| match look.wide {
        true => all_of(&here, &names, columns) + "\n",
        false => most_of(&here, &names, columns) + "\n",
    }));
    for job in verdicts(rows) {
        lines.push(format!("{}:", job.heading));
        let shown = |verdict: &String| match look.bold && tells_apart(verdict) {
            true => format!("\x1b[1m{verdict}\x1b[0m"),
            false => verdict.clone(),
        };
        lines.extend(job.rows.iter().map(|(name, verdict)| format!("  {name}: {}", shown(verdict))));
        lines.push(String::new());
    }
    lines.push(format!("host: {}", report.host.sentence()));
    let signs = noise(report);
    if !signs.is_empty() {
        lines.push(format!("noisy: {}", signs.join("; ")));
    }
    lines.extend(report.run.incomplete.iter().map(|why| format!("incomplete: {why}")));
    lines.extend(warnings(rows));
    lines.join("\n")
}

/// Lines of about 100 characters: a job's name has a line of its own, and a row's name is one column.
fn most_of(rows: &[&Row], names: &[Name], columns: &[Column]) -> String {
    let columns: Vec<_> = columns.iter().filter(|column| !column.wide && column.is_in(rows)).collect();
    let headings = columns.iter().map(|column| format!("{}>", column.heading));
    let headings: Vec<String> = [String::new()].into_iter().chain(headings).collect();
    let differs = |name: &str| names.iter().any(|(heading, _)| *heading == name);
    let mut lines = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        if n == 0 || rows[n - 1].job != row.job {
            lines.push(vec![row.job.clone()]);
        }
        let name = format!("  {}", of_filter(row, differs));
        lines.push([name].into_iter().chain(columns.iter().map(|c| (c.text)(row))).collect());
    }
    narrow_table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), lines)
}

/// Every column.
fn all_of(rows: &[&Row], names: &[Name], columns: &[Column]) -> String {
    let columns: Vec<_> = columns.iter().filter(|column| column.is_in(rows)).collect();
    let names_first =
        ["job".to_string()].into_iter().chain(names.iter().map(|(heading, _)| heading.to_string()));
    let headings: Vec<String> =
        names_first.chain(columns.iter().map(|column| format!("{}>", column.heading))).collect();
    let cells = rows.iter().enumerate().map(|(n, row)| {
        // Only the first row of a job shows its name.
        let repeated = n > 0 && rows[n - 1].job == row.job;
        let job = if repeated { String::new() } else { row.job.clone() };
        let names = names.iter().map(|(_, name)| name(row).unwrap_or(NONE.into()));
        [job].into_iter().chain(names).chain(columns.iter().map(|c| (c.text)(row))).collect()
    });
    table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), cells)
}

fn heading(report: &Report, common: &[Name]) -> String {
    let run = &report.run;
    let mut parts: Vec<String> = Vec::new();
    if let Some(first) = report.rows.first() {
        let said = |(heading, name): &Name| {
            let value = name(first).filter(|value| !value.is_empty())?;
            // One queue and no polling are the default.
            let rule = matches!((*heading, value.as_str()), ("queues", "1") | ("poll us", "0"));
            (!rule).then(|| format!("{heading} {value}"))
        };
        parts.extend(common.iter().filter_map(said));
    }
    parts.push(format!("{} vCPU{}", run.vcpus, if run.vcpus == 1 { "" } else { "s" }));
    if let Some(disk) = &run.disk {
        parts.push(format!("disks: {disk}"));
    }
    let each = run.runtime_s.map_or(String::new(), |s| format!(" of {s} s"));
    parts.push(format!("{} rounds{each}, paths in turn; took {:.0} s", run.rounds, run.took_s));
    parts.join(", ")
}

/// Warnings, and rows that cannot be measured on this host.
pub(super) fn warnings(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        if let Some(why) = &row.not_here {
            let words = [Some(row.job.as_str()), row.notify.as_deref(), row.complete.as_deref()];
            let words = words.into_iter().chain([row.backend.as_deref(), row.peer.as_deref()]).flatten();
            lines.push(format!("not here: {}: {why}", words.collect::<Vec<_>>().join(" ")));
            continue;
        }
        let name = [row.notify.as_deref(), row.complete.as_deref()].into_iter().flatten().collect::<Vec<_>>();
        let name = format!("{} on {}", row.job, name.join("+"));
        if let Some(missed @ 1..) = row.kicks_missed {
            lines.push(format!(
                "warning: {name}: {missed} kicks came by exit that an ioeventfd should have caught"
            ));
        }
        lines.extend(failed_checks(row).into_iter().map(|what| format!("warning: {name}: {what}")));
        let lost = row.round_iops.iter().filter(|round| round.is_none()).count();
        if lost > 0 {
            lines.push(format!("warning: {name}: {lost} of {} rounds were lost", row.round_iops.len()));
        }
    }
    lines
}

fn ratio(row: &Row) -> String {
    match (row.ratio, row.ratio_low, row.ratio_high) {
        (Some(ratio), Some(low), Some(high)) => format!("{ratio:.3} ({low:.3}-{high:.3})"),
        (Some(ratio), ..) => format!("{ratio:.3}"),
        _ => NONE.into(),
    }
}

fn micros(ns: Option<f64>) -> String {
    match ns.map(|ns| ns / 1000.0) {
        None => NONE.into(),
        Some(us) if us < 100.0 => format!("{us:.1}"),
        Some(us) => grouped(us),
    }
}

fn count(value: Option<u64>) -> String {
    value.map_or(NONE.into(), |n| grouped(n as f64))
}

fn two(value: Option<f64>) -> String {
    value.map_or(NONE.into(), |value| format!("{value:.2}"))
}

/// A whole number, with a comma every three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, c) in digits.chars().enumerate() {
        if n > 0 && c.is_ascii_digit() && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
