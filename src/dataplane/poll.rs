use std::time::{Duration, Instant};

/// How long to watch the rings before sleeping: an adaptive window with an upper bound.
///
/// It doubles after a sleep so short that a longer window would have caught the event. It closes after a sleep longer
/// than the bound, so that an idle thread does not waste its CPU.
#[derive(Debug)]
pub(super) struct PollWindow {
    max: Duration,
    now: Duration,
}

/// The smallest open window.
const FLOOR: Duration = Duration::from_micros(4);

/// The end of a busy-poll. It reads the clock only now and then.
pub(super) struct Deadline {
    at: Instant,
    spins: u32,
}

impl Deadline {
    pub fn passed(&mut self) -> bool {
        self.spins += 1;
        self.spins.is_multiple_of(16) && Instant::now() >= self.at
    }
}

impl PollWindow {
    pub fn new(max_ns: u64) -> PollWindow {
        PollWindow { max: Duration::from_nanos(max_ns), now: Duration::ZERO }
    }

    /// Returns the end of a busy-poll that begins now, or `None` if the window is closed.
    pub fn start(&self) -> Option<Deadline> {
        (self.now > Duration::ZERO).then(|| Deadline { at: Instant::now() + self.now, spins: 0 })
    }

    /// Call it before a sleep. Returns the time, or `None` if busy-polling is off and nothing uses the time.
    pub fn sleeping(&self) -> Option<Instant> {
        (self.max > Duration::ZERO).then(Instant::now)
    }

    /// Call it after a sleep that began at `since`. Adapts the window to the length of the sleep.
    pub fn woken(&mut self, since: Option<Instant>) {
        if let Some(since) = since {
            self.adapt(since.elapsed());
        }
    }

    fn adapt(&mut self, slept: Duration) {
        if slept > self.max {
            self.now = Duration::ZERO;
        } else {
            self.now = (self.now * 2).clamp(FLOOR, self.max.max(FLOOR)).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_on_short_sleeps_and_closes_on_long_ones() {
        let mut window = PollWindow::new(50_000);
        assert!(window.start().is_none(), "closed until a sleep was short");
        let short = Duration::from_micros(20);
        let sizes: Vec<_> = (0..5)
            .map(|_| {
                window.adapt(short);
                window.now.as_micros()
            })
            .collect();
        assert_eq!(sizes, [4, 8, 16, 32, 50]);
        window.adapt(Duration::from_millis(1));
        assert!(window.start().is_none());
    }

    #[test]
    fn a_bound_of_zero_never_polls() {
        let mut window = PollWindow::new(0);
        assert!(window.sleeping().is_none());
        window.adapt(Duration::ZERO);
        assert!(window.start().is_none());
    }
}
