use super::super::report::Row;
use super::bench::Bench;
use super::config::FLOOR_JOB;
use super::floor::Style;
use super::no_irqchip;
use super::qemu::PEER;
use super::row_stats::RowStats;
use super::work::{WORKLOADS, Work, Workload};
use crate::virtio::NotifyPath;

impl Bench<'_> {
    pub(super) fn row(&self, work: Work, stats: &RowStats) -> Row {
        let text = |value: &dyn std::fmt::Display| Some(value.to_string());
        let counted = stats.row(self.ticks_per_second, matches!(work, Work::Disk(..)));
        let common = Row { guest: "probe".into(), queues: Some(1), ..counted };
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
            Work::Disk(workload, n) => self.variants[n].row(workload, common),
            Work::Peer(workload, n) => self.peer_variant(n).row(workload, common),
        }
    }

    /// The rows of `workload` that cannot be measured on this host.
    pub(super) fn absent_rows(&self, workload: Workload) -> Vec<Row> {
        let filter = self.config.filter.as_deref().unwrap_or("");
        let row = |why: &String| Row {
            guest: "probe".into(),
            queues: Some(1),
            not_here: Some(why.clone()),
            ..Row::default()
        };
        let ours = self.absent.iter().filter(|(variant, _)| variant.runs(workload));
        let ours = ours.filter(|(variant, _)| variant.name(workload).contains(filter));
        let mut rows: Vec<_> = ours.map(|(variant, why)| variant.row(workload, row(why))).collect();
        match &self.peer {
            Some(Ok(peer)) => {
                let theirs =
                    peer.absent.iter().filter(|(variant, _)| variant.name(workload).contains(filter));
                rows.extend(theirs.map(|(variant, why)| variant.row(workload, row(why))));
            }
            // One row stands for all its devices, under the first workload.
            Some(Err(why)) if workload == WORKLOADS[0] => {
                let peer = Some(PEER.into());
                rows.push(Row { job: workload.name.into(), peer, queues: None, ..row(why) });
            }
            Some(Err(_)) | None => {}
        }
        rows
    }
}

/// Fills in, for every row at depth 1, the floor of its kind and the ratio to it.
pub(super) fn fill_floor_ratios(rows: &mut [Row]) {
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
