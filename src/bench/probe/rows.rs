use super::super::report::Row;
use super::floor::Style;
use super::no_irqchip;
use super::qemu::PEER;
use super::row_stats::RowStats;
use super::run::{Bench, FLOOR_JOB, Work};
use super::variants::{JOBS, Job};
use crate::virtio::NotifyPath;

impl Bench<'_> {
    pub(super) fn row(&self, work: Work, row_stats: &RowStats) -> Row {
        let text = |value: &dyn std::fmt::Display| Some(value.to_string());
        let tallied = row_stats.row(self.ticks_per_second, matches!(work, Work::Disk(..)));
        let common = Row { guest: "probe".into(), queues: Some(1), ..tallied };
        match work {
            Work::Floor(style, answer) => Row {
                job: FLOOR_JOB.into(),
                notify: text(if style == Style::Exit { &NotifyPath::Exit } else { &NotifyPath::Mmio }),
                complete: text(&answer),
                wait: text(&style),
                queues: None,
                depth: Some(1),
                ..common
            },
            Work::KvmInterrupt => no_irqchip::row(common),
            Work::Disk(job, n) => self.variants[n].row(job, common),
            Work::Peer(job, n) => self.peer_subject(n).row(job, common),
        }
    }

    /// The rows of `job` that this host has not.
    pub(super) fn absent_rows(&self, job: Job) -> Vec<Row> {
        let filter = self.config.filter.as_deref().unwrap_or("");
        let row = |why: &String| Row {
            guest: "probe".into(),
            queues: Some(1),
            not_here: Some(why.clone()),
            ..Row::default()
        };
        let ours =
            self.absent.iter().filter(|(variant, _)| variant.does(job) && variant.name(job).contains(filter));
        let mut rows: Vec<_> = ours.map(|(variant, why)| variant.row(job, row(why))).collect();
        match &self.peer {
            Some(Ok(peer)) => {
                let theirs = peer.absent.iter().filter(|(variant, _)| variant.name(job).contains(filter));
                rows.extend(theirs.map(|(variant, why)| variant.row(job, row(why))));
            }
            // One row for all, under the first job.
            Some(Err(why)) if job == JOBS[0] => {
                let peer = Some(PEER.into());
                rows.push(Row { job: job.name.into(), peer, queues: None, ..row(why) });
            }
            Some(Err(_)) | None => {}
        }
        rows
    }
}

/// Tells every row at depth 1 how far above the bare ping-pong of its kind it stands.
pub(super) fn stand_on_floors(rows: &mut [Row]) {
    let floors: Vec<Row> = rows.iter().filter(|row| row.job == FLOOR_JOB).cloned().collect();
    for row in rows.iter_mut().filter(|row| row.depth == Some(1) && row.job != FLOOR_JOB) {
        let wait = row.wait.clone();
        let same = |floor: &&Row| {
            floor.wait == wait
                && (floor.complete == row.complete || floor.complete.as_deref() == Some("irqfd"))
        };
        let best = floors.iter().filter(same).max_by_key(|floor| floor.complete == row.complete);
        row.floor_p50_ns = best.and_then(|floor| floor.p50_ns);
        row.floor_ratio = match (row.p50_ns, row.floor_p50_ns) {
            (Some(p50), Some(floor)) if floor > 0 => Some(p50 as f64 / floor as f64),
            _ => None,
        };
    }
}
