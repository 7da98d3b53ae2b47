//! Where a request's time goes, and what it costs: kick, device and interrupt side by side; counts and CPU time per request.

use std::fmt::Write;

use super::scale::{linear, time};
use super::{escape, name};
use crate::bench::{Row, per_request};

/// Kick | device | interrupt of each row as one bar; empty if no row has them.
pub fn stacks(rows: &[&Row]) -> String {
    let parts = |row: &&Row| {
        let (kick, interrupt) = (row.kick_p50_ns? as f64, row.interrupt_p50_ns? as f64);
        // Medians of parts need not add up to the median of the whole.
        let device = (row.p50_ns? as f64 - kick - interrupt).max(0.0);
        Some((name(row), [kick, device, interrupt]))
    };
    let bars: Vec<_> = rows.iter().filter_map(parts).collect();
    let mut sums: Vec<f64> = bars.iter().map(|(_, parts)| parts.iter().sum()).collect();
    sums.sort_by(f64::total_cmp);
    let Some(longest) = sums.last().copied().filter(|&longest| longest > 0.0) else {
        return String::new();
    };
    // Cut, so that a slow row does not make all others too short to read; the numbers at its right say how long it is.
    let (end, step) = linear(longest.min(4.0 * sums[sums.len() / 2]));
    let mut out = format!("<div class=\"bars\" style=\"--step:{:.4}%\">\n", 100.0 * step / end);
    for (name, parts) in &bars {
        let mut left = 0.0;
        let mut track = String::new();
        for (part, class) in parts.iter().zip(["k0", "floor", "k1"]) {
            let width = (100.0 * part / end).min(100.0 - left);
            let _ = write!(
                track,
                "<div class=\"fill {class}\" style=\"left:{left:.2}%;width:{width:.2}%\"></div>"
            );
            left += width;
        }
        let value = parts.map(time).join(" | ");
        let _ = writeln!(
            out,
            "<div class=\"bar\"><div class=\"name\">{}</div><div class=\"track\">{track}</div><div class=\"value\">{value}</div></div>",
            escape(name)
        );
    }
    let legend = [("k0", "kick"), ("floor", "device"), ("k1", "interrupt")]
        .map(|(class, what)| format!("<span><i class=\"{class}\"></i>{what}</span>"));
    format!("{out}</div>\n<figcaption>{}</figcaption>\n", legend.concat())
}

/// A count of a row.
type Count = (&'static str, fn(&Row) -> Option<f64>);

const COUNTS: [Count; 6] = [
    ("kicks by ioeventfd", |row| per_request(row.kicks_ioeventfd, row.requests)),
    ("kicks by exit", |row| per_request(row.kicks_exit, row.requests)),
    ("interrupts", |row| per_request(row.interrupts.or(row.guest_interrupts), row.requests)),
    ("exits", |row| per_request(row.exits, row.requests)),
    ("system calls", |row| per_request(row.iothread_syscalls, row.requests)),
    ("CPU \u{b5}s", |row| row.io_thread_cpu_ns_per_request.map(|ns| ns / 1000.0)),
];

/// The counts per request and the CPU time of the I/O thread, each with a bar that is long where the column's largest is.
pub fn counts(rows: &[&Row]) -> String {
    let counts: Vec<_> = COUNTS.iter().filter(|(_, get)| rows.iter().any(|row| get(row).is_some())).collect();
    if counts.is_empty() {
        return String::new();
    }
    let head: String = counts.iter().map(|(what, _)| format!("<th>{what}</th>")).collect();
    let mut out = format!(
        "<div class=\"scroll\"><table class=\"counts\">\n<thead><tr><th>row</th>{head}</tr></thead>\n<tbody>\n"
    );
    for row in rows {
        let cell = |(_, get): &&Count| {
            let most = rows.iter().filter_map(|row| get(row)).fold(0.0, f64::max);
            let width = |value: f64| if most > 0.0 { 100.0 * value / most } else { 0.0 };
            get(row).map_or("<td>-</td>".into(), |value| {
                format!("<td class=\"part\" style=\"--part:{:.1}%\">{value:.2}</td>", width(value))
            })
        };
        let cells: String = counts.iter().map(cell).collect();
        let _ = writeln!(out, "<tr><td>{}</td>{cells}</tr>", escape(&name(row)));
    }
    out + "</tbody>\n</table></div>\n"
}
