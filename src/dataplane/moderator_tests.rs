use proptest::prelude::*;

use super::*;

/// A guest on a device that completes at once. It submits a request every `gap` nanoseconds while it has one to submit.
/// It handles an interrupt in `interrupt` nanoseconds, and can then submit again everything that was published.
struct Guest {
    moderator: Moderator,
    now: u64,
    gap: u64,
    interrupt: u64,
    /// How many requests it can submit.
    idle: u32,
    published: u32,
    requests: u64,
    interrupts: u64,
    /// Time with nothing to submit while an interrupt was held, in nanoseconds.
    waited: u64,
}

impl Guest {
    fn new(setting: Moderation, depth: u32) -> Guest {
        let (gap, interrupt) = (2_000, 20_000);
        let mut moderator = Moderator::new(setting);
        // The test must not depend on the machine's CPUs.
        moderator.spare_cpu = true;
        let counts = (0, 0, 0);
        Guest {
            moderator,
            now: 1,
            gap,
            interrupt,
            idle: depth,
            published: 0,
            requests: counts.0,
            interrupts: counts.1,
            waited: counts.2,
        }
    }

    fn step(&mut self) {
        if self.idle == 0 {
            let from = self.now;
            while !self.moderator.is_due(self.now) {
                assert!(self.moderator.is_held(), "the guest waits, and nobody will tell it");
                self.now += 500;
            }
            self.waited += self.now - from;
            return self.take_interrupt();
        }
        self.now += self.gap;
        (self.idle, self.published, self.requests) = (self.idle - 1, self.published + 1, self.requests + 1);
        self.moderator.arrived(self.now);
        let (now, wanted) = (self.now, self.published == 1);
        let batch = Batch { now, completions: 1, wanted, ring_empty: true, device_behind: false };
        if self.moderator.published(batch) == Verdict::Deliver {
            self.take_interrupt();
        }
    }

    fn take_interrupt(&mut self) {
        self.now += self.interrupt;
        (self.idle, self.published) = (self.idle + self.published, 0);
        self.interrupts += 1;
    }

    fn run(&mut self, requests: u64) {
        let until = self.requests + requests;
        while self.requests < until {
            self.step();
        }
    }

    fn change_depth(&mut self, depth: u32) {
        if self.moderator.release(self.now) {
            self.take_interrupt();
        }
        self.idle = depth;
    }
}

#[test]
fn settings_are_written_as_they_are_read() {
    for text in ["off", "auto", "16:500", "1024:100000"] {
        let setting: Moderation = text.parse().unwrap();
        assert_eq!((setting.to_string().as_str(), Moderation::from_word(setting.to_word())), (text, setting));
    }
    assert_eq!("4,30".parse(), Ok(Moderation::Fixed { completions: 4, max_us: 30 }));
    for wrong in ["", "on", "4", "0:5", "5:0", "1025:1", "1:100001", "+4:1", "4:", ":4", "4:4:4"] {
        assert!(wrong.parse::<Moderation>().is_err(), "{wrong}");
    }
}

#[test]
fn at_depth_1_tries_become_rare_and_cost_next_to_nothing() {
    let mut guest = Guest::new(Moderation::Auto, 1);
    guest.run(20_000);
    let counts = guest.moderator.counts;
    assert_eq!(guest.interrupts, 20_000);
    assert_eq!((counts.merged, counts.failed), (0, counts.held), "no try brings anything");
    assert!((1..200).contains(&counts.held), "below 1 % of the requests: {counts:?}");
    assert!(guest.waited < guest.now / 100, "{} of {} ns", guest.waited, guest.now);
}

#[test]
fn with_many_in_flight_one_interrupt_serves_many() {
    for depth in [8, 32, 128] {
        let mut guest = Guest::new(Moderation::Auto, depth);
        guest.run(20_000);
        let each = guest.requests / guest.interrupts;
        assert!(each >= u64::from(depth.min(64)) / 2, "depth {depth}: {each} requests an interrupt");
        assert!(guest.waited < guest.now / 20, "depth {depth}: {} of {} ns", guest.waited, guest.now);
    }
}

#[test]
fn off_interrupts_for_every_completion() {
    let mut guest = Guest::new(Moderation::Off, 32);
    guest.run(1000);
    assert_eq!((guest.interrupts, guest.moderator.counts), (1000, HoldCounts::default()));
}

#[test]
fn a_fixed_setting_is_kept() {
    let mut guest = Guest::new(Moderation::Fixed { completions: 5, max_us: 50 }, 32);
    guest.run(1000);
    assert_eq!(guest.interrupts, 200);
    let mut guest = Guest::new(Moderation::Fixed { completions: 100, max_us: 50 }, 32);
    guest.run(1000);
    assert!(guest.moderator.counts.longest_ns <= 52_000, "{:?}", guest.moderator.counts);
}

#[test]
fn a_change_of_depth_is_noticed_within_a_few_tries() {
    let mut guest = Guest::new(Moderation::Auto, 1);
    for _ in 0..10 {
        guest.change_depth(1);
        guest.run(2_000);
        guest.change_depth(32);
        let (before, interrupts) = (guest.requests, guest.interrupts);
        guest.run(20_000);
        let each = (guest.requests - before) / (guest.interrupts - interrupts);
        assert!(each >= 10, "{each} requests an interrupt");
    }
}

#[test]
fn a_slow_device_or_one_that_has_more_to_do_tells_at_once() {
    let mut moderator = Moderator::new(Moderation::Auto);
    moderator.spare_cpu = true;
    let batch = |now: u64, device_behind: bool| Batch {
        now,
        completions: 1,
        wanted: true,
        ring_empty: !device_behind,
        device_behind,
    };
    for n in 0..100 {
        moderator.arrived(n * 100_000);
        assert_eq!(moderator.published(batch(n * 100_000 + 50_000, true)), Verdict::Deliver);
    }
    // A held interrupt goes out as soon as the device falls behind.
    moderator.delivered = Some(20_000_000);
    moderator.arrived(20_050_000);
    assert_eq!(moderator.published(batch(20_060_000, false)), Verdict::Hold);
    assert_eq!(moderator.published(batch(20_070_000, true)), Verdict::Deliver);
    assert!(!moderator.is_held());
}

#[test]
fn with_one_cpu_nothing_can_come_while_this_thread_watches() {
    let mut guest = Guest::new(Moderation::Auto, 32);
    guest.moderator.spare_cpu = false;
    guest.run(1000);
    assert_eq!((guest.interrupts, guest.moderator.counts.held), (1000, 0));
}

proptest! {
    /// For any sequence of batches: a held interrupt is due within its bound, and a wanted one is delivered or held.
    #[test]
    fn no_hold_outlives_its_bound(
        events in prop::collection::vec((1u64..3_000_000, 1u32..5, any::<[bool; 3]>()), 1..200),
        fixed in prop::option::of((1u32..50, 1u32..3000)),
    ) {
        let setting = fixed.map_or(Moderation::Auto, |(completions, max_us)| Moderation::Fixed { completions, max_us });
        let mut moderator = Moderator::new(setting);
        let (mut now, mut since): (u64, Option<u64>) = (0, None);
        for (after, completions, [wanted, ring_empty, device_behind]) in events {
            // While a thread holds an interrupt, it reads the clock all the time.
            let until = now + after;
            if let Some(begun) = since {
                let due = (begun + moderator.max_ns()).min(until);
                if moderator.is_due(due) {
                    since = None;
                }
                prop_assert!(since.is_none() || due < begun + moderator.max_ns());
            }
            now = until;
            moderator.arrived(now);
            let held = moderator.is_held();
            match moderator.published(Batch { now, completions, wanted, ring_empty, device_behind }) {
                Verdict::Quiet => prop_assert!(!wanted && !held),
                Verdict::Deliver => {
                    prop_assert!(wanted || held);
                    since = None;
                }
                Verdict::Hold => since = since.or(Some(now)),
            }
            prop_assert_eq!(moderator.is_held(), since.is_some());
        }
    }
}
