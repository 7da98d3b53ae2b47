use hdrhistogram::Histogram;

use super::super::report::{Row, per_request};
use super::one_way::OneWay;
use crate::bench::{Buckets, DiskCounts};

/// The sums over the rounds of one row. Times are in TSC ticks until the end.
pub(super) struct RowStats {
    round_trip: Histogram<u64>,
    kick: Histogram<u64>,
    interrupt: Histogram<u64>,
    round_iops: Vec<Option<f64>>,
    round_p50_ns: Vec<Option<f64>>,
    /// The distribution over all rounds.
    ticks: u64,
    requests: u64,
    kicks: u64,
    guest_interrupts: u64,
    disk: DiskCounts,
    waits: u64,
    cpu_ns: Option<u64>,
    exits: Option<u64>,
    exits_to_user: u64,
}

/// The results of one block.
#[derive(Default)]
pub(super) struct Block {
    /// Ticks of each round trip.
    pub round_trip: Vec<u64>,
    /// If they could be measured.
    pub one_way: OneWay,
    /// Ticks of the whole block.
    pub ticks: u64,
    pub requests: u64,
    pub kicks: u64,
    pub guest_interrupts: u64,
    pub disk: DiskCounts,
    pub waits: u64,
    /// CPU time of the I/O threads.
    pub cpu_ns: Option<u64>,
    pub exits: Option<u64>,
    pub exits_to_user: u64,
}

fn histogram() -> Histogram<u64> {
    // Three digits are exact to 0.1 %. Auto-resizing: a stall of seconds must not be an error.
    let mut histogram = Histogram::new(3).expect("three digits are allowed");
    histogram.auto(true);
    histogram
}

impl RowStats {
    pub fn new() -> RowStats {
        RowStats {
            round_trip: histogram(),
            kick: histogram(),
            interrupt: histogram(),
            round_iops: Vec::new(),
            round_p50_ns: Vec::new(),
            ticks: 0,
            requests: 0,
            kicks: 0,
            guest_interrupts: 0,
            disk: DiskCounts::default(),
            waits: 0,
            cpu_ns: Some(0),
            exits: Some(0),
            exits_to_user: 0,
        }
    }

    pub fn add(&mut self, block: &Block, ticks_per_second: f64) {
        // Recording grows the histogram (saturating would not) and fails only beyond 2^63 ticks.
        for &ticks in &block.round_trip {
            let _ = self.round_trip.record(ticks);
        }
        for &ticks in &block.one_way.kick {
            let _ = self.kick.record(ticks);
        }
        for &ticks in &block.one_way.interrupt {
            let _ = self.interrupt.record(ticks);
        }
        let seconds = block.ticks as f64 / ticks_per_second;
        self.round_iops.push((seconds > 0.0).then(|| block.requests as f64 / seconds));
        self.round_p50_ns
            .push(median(&block.round_trip).map(|ticks| (ticks * 1e10 / ticks_per_second).round() / 10.0));
        self.ticks += block.ticks;
        self.requests += block.requests;
        self.kicks += block.kicks;
        self.guest_interrupts += block.guest_interrupts;
        self.disk.add(&block.disk);
        self.waits += block.waits;
        self.cpu_ns = self.cpu_ns.zip(block.cpu_ns).map(|(sum, more)| sum + more);
        self.exits_to_user += block.exits_to_user;
        self.exits = self.exits.zip(block.exits).map(|(sum, more)| sum + more);
    }

    /// A round that was lost.
    pub fn lose(&mut self) {
        self.round_iops.push(None);
        self.round_p50_ns.push(None);
    }

    /// Leaves out the rounds after the first `rounds`: not every row has them.
    pub fn keep(&mut self, rounds: usize) {
        self.round_iops.truncate(rounds);
        self.round_p50_ns.truncate(rounds);
    }

    /// `named` with the rounds.
    pub fn rounds(&self, named: Row) -> Row {
        Row { round_iops: self.round_iops.clone(), round_p50_ns: self.round_p50_ns.clone(), ..named }
    }

    /// The row; `disk`: whether a disk was measured, not the bare floor.
    pub fn row(&self, ticks_per_second: f64, disk: bool) -> Row {
        let ns = |ticks: f64| ticks * 1e9 / ticks_per_second;
        let at = |h: &Histogram<u64>, q| (!h.is_empty()).then(|| ns(h.value_at_quantile(q) as f64) as u64);
        let times = &self.round_trip;
        let seconds = self.ticks as f64 / ticks_per_second;
        let kicks_exit = if disk { self.disk.kicks_exit } else { 0 };
        Row {
            // Requests divided by time, not a mean of the rounds' rates: a short round counts less than a long one.
            iops: (seconds > 0.0).then(|| self.requests as f64 / seconds),
            round_iops: self.round_iops.clone(),
            round_p50_ns: self.round_p50_ns.clone(),
            min_ns: (!times.is_empty()).then(|| ns(times.min() as f64) as u64),
            mean_ns: (!times.is_empty()).then(|| ns(times.mean())),
            p50_ns: at(times, 0.5),
            p90_ns: at(times, 0.9),
            p99_ns: at(times, 0.99),
            p999_ns: at(times, 0.999),
            kick_p50_ns: at(&self.kick, 0.5),
            interrupt_p50_ns: at(&self.interrupt, 0.5),
            requests: Some(self.requests),
            interrupts: disk.then(|| self.disk.interrupts()),
            interrupts_irqfd: disk.then_some(self.disk.irqfd),
            interrupts_signal_msi: disk.then_some(self.disk.signal_msi),
            guest_interrupts: Some(self.guest_interrupts),
            interrupts_suppressed: disk.then_some(self.disk.suppressed),
            holds: disk.then_some(self.disk.held),
            holds_merged: disk.then_some(self.disk.merged),
            holds_expired: disk.then_some(self.disk.expired),
            holds_failed: disk.then_some(self.disk.failed),
            kicks_ioeventfd: disk.then(|| self.kicks.saturating_sub(kicks_exit)),
            kicks_exit: disk.then_some(kicks_exit),
            kicks_missed: disk.then_some(self.disk.kicks_missed),
            exits: self.exits,
            exits_to_user: Some(self.exits_to_user),
            histogram: (!times.is_empty()).then(|| {
                let mut buckets = Buckets::default();
                for value in times.iter_recorded() {
                    buckets.add(ns(value.value_iterated_to() as f64) as u64, value.count_at_value());
                }
                buckets.list()
            }),
            iothread_syscalls: disk.then_some(self.disk.syscalls + self.waits),
            io_thread_cpu_ns_per_request: per_request(self.cpu_ns.filter(|_| disk), Some(self.requests)),
            ..Row::default()
        }
    }
}

/// The exact median, not a histogram's: paths are compared by it.
fn median(times: &[u64]) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let (low, high) = (times.len().checked_sub(1)? / 2, times.len() / 2);
    Some((times[low] + times[high]) as f64 / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_samples_whatever_their_size() {
        let mut stats = RowStats::new();
        // Two rounds on a counter of 2 GHz.
        for times in [[2_000, 4_000, 200_000_000], [2_000, 4_000, 60_000]] {
            let block = Block {
                round_trip: times.to_vec(),
                ticks: 2_000_000,
                requests: 3,
                exits: Some(4),
                ..Block::default()
            };
            stats.add(&block, 2e9);
        }
        let row = stats.row(2e9, false);
        assert_eq!((row.min_ns, row.p50_ns), (Some(1_000), Some(2_000)));
        assert_eq!(row.round_p50_ns, [Some(2_000.0); 2]);
        let slowest = row.p999_ns.unwrap();
        assert!((100_000_000..100_100_000).contains(&slowest), "{slowest}");
        assert_eq!(row.histogram.unwrap().iter().map(|(_, n)| n).sum::<u64>(), 6);
        assert_eq!((row.iops, row.exits, row.interrupts), (Some(3000.0), Some(8), None));
    }

    #[test]
    fn one_block_without_a_count_leaves_it_unknown() {
        let mut stats = RowStats::new();
        stats.add(&Block { exits: Some(4), ..Block::default() }, 1e9);
        stats.add(&Block::default(), 1e9);
        let row = stats.row(1e9, false);
        assert_eq!((row.exits, row.p50_ns, row.iops, row.histogram), (None, None, None, None));
        assert_eq!((row.round_p50_ns, median(&[2, 1])), (vec![None; 2], Some(1.5)));
    }
}
