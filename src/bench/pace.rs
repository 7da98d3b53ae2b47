//! How long a run goes on: a number of rounds, until the intervals are narrow, for a time, or until somebody ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::Row;
use super::ratios::fill_ratios;

/// Below this number of rounds there is no interval.
const FEWEST: usize = 6;

/// When a run ends, besides at its last round.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// How far both ends of every ratio's own interval may be from the ratio: 0.02 is 2 %. `None`: all rounds are made.
    pub until: Option<f64>,
    /// The longest time from the start of the run.
    pub max_time: Option<Duration>,
    /// What ends it from outside; clones share it.
    pub stop: Stop,
}

/// The number of the signal that asked a run to end; 0: none.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// Asks the run to end, because of `signal`.
    pub fn ask(&self, signal: i32) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal that asked for it.
    pub fn asked(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }
}

impl Pace {
    /// Why the run that began at `started` ends now, between two measurements; `None`: it goes on.
    pub fn cut(&self, started: Instant) -> Option<String> {
        if let Some(signal) = self.stop.asked() {
            return Some(format!("ended by signal {signal}"));
        }
        let max_time = self.max_time.filter(|&max| started.elapsed() >= max)?;
        Some(format!("ended after --max-time, {} s", max_time.as_secs_f64()))
    }

    /// Whether `rows`, of which only names, depths and rounds are looked at, are known as exactly as was asked for.
    ///
    /// Width decides, never the side of 1 that the interval is on: a run that stopped at the first difference would find
    /// one by chance.
    pub fn exact_enough(&self, rows: &[Row]) -> bool {
        let Some(until) = self.until else { return false };
        let rounds = rows.iter().map(|row| row.round_iops.len()).max().unwrap_or(0);
        // Whole pairs of forward and backward order only.
        if rounds < FEWEST || !rounds.is_multiple_of(2) {
            return false;
        }
        let mut rows = rows.to_vec();
        fill_ratios(&mut rows);
        let wide = |row: &Row| {
            let Some(ratio) = row.ratio else { return false };
            match (row.ratio_low, row.ratio_high) {
                (Some(low), Some(high)) => (high / ratio).max(ratio / low) > 1.0 + until,
                _ => true,
            }
        };
        !rows.iter().any(wide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(spread: f64, rounds: usize) -> Vec<Row> {
        let round = |n: usize| Some(1000.0 * (1.0 + spread * ((n % 5) as f64 - 2.0)));
        let row = |iops: Vec<Option<f64>>| Row { job: "j".into(), round_iops: iops, ..Row::default() };
        vec![row(vec![Some(1000.0); rounds]), row((0..rounds).map(round).collect())]
    }

    #[test]
    fn narrow_intervals_end_it_and_never_before_the_sixth_round() {
        let pace = Pace { until: Some(0.02), ..Pace::default() };
        assert!(pace.exact_enough(&rows(0.001, 6)));
        assert!(!pace.exact_enough(&rows(0.001, 4)) && !pace.exact_enough(&rows(0.001, 7)));
        assert!(!pace.exact_enough(&rows(0.05, 6)));
        assert!(pace.exact_enough(&rows(0.02, 40)), "more rounds, a narrower interval");
        assert!(!Pace::default().exact_enough(&rows(0.001, 6)), "not asked for");
    }

    #[test]
    fn time_and_signals_cut_it() {
        let started = Instant::now();
        assert_eq!(Pace::default().cut(started), None);
        let pace = Pace { max_time: Some(Duration::ZERO), ..Pace::default() };
        assert_eq!(pace.cut(started).as_deref(), Some("ended after --max-time, 0 s"));
        pace.clone().stop.ask(2);
        assert_eq!(pace.cut(started).as_deref(), Some("ended by signal 2"), "clones share it");
    }
}
