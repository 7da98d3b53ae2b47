//! When to hold an interrupt: the decision, as a state machine over time stamps that knows no ring and no clock.
//!
//! A quick device completes each request before the guest has submitted the next. Every request then costs a kick, a
//! wake-up and an interrupt, although the guest has many more to submit. The queue alone cannot show that: the driver
//! has reaped all but one, and the application's other requests wait behind the interrupt. So the device tries: it
//! holds the interrupt and watches the ring with kicks off. If the next request comes, holding paid, and it goes on.
//! If none comes, the guest was waiting for this interrupt, and the next tries are made rarer.

use super::moderation::{AUTO_MAX_US, Moderation};

/// What to do about a batch that was just published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The driver wants no interrupt, and none is held.
    Quiet,
    /// Interrupt now.
    Deliver,
    /// Keep the interrupt, and watch the ring.
    Hold,
}

/// A batch of completions, as the moderator sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// When it was published, in nanoseconds.
    pub now: u64,
    /// Completions in it.
    pub completions: u32,
    /// The driver wants an interrupt for it.
    pub wanted: bool,
    /// The guest has nothing more in the ring: what it submits next it submits after the interrupt.
    pub ring_empty: bool,
    /// The guest waits for the device: it has more in the ring or at the backend, and that takes longer than the guest
    /// takes to submit. A held interrupt would only take away the overlap of the two.
    pub device_behind: bool,
}

/// What holds brought. Read by the queue's owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HoldCounts {
    /// Holds begun.
    pub held: u64,
    /// Completions that needed no interrupt of their own, because one was held.
    pub merged: u64,
    /// Holds that ended because nothing came in time.
    pub expired: u64,
    /// Of these, holds that brought no further completion.
    pub failed: u64,
    /// Longest hold, in nanoseconds.
    pub longest_ns: u64,
}

#[derive(Debug)]
struct Held {
    since: u64,
    /// Last arrival.
    last: u64,
    completions: u32,
}

/// Completions per hold at most, whatever was learnt.
const MOST_COMPLETIONS: u32 = 64;
/// Completions per hold at the beginning.
const FIRST_COMPLETIONS: u32 = 4;
/// Shortest wait for the guest's next request: a guest that runs is never quicker than a few microseconds.
const SHORTEST_WAIT: u64 = 10_000;
/// After a failed try the next one waits for this many times the time that the failure cost, four times as long after
/// each further failure. One failure among successes is an accident of timing; at depth 1 tries soon cost 0.4 % of the
/// time.
const PAUSE: (u64, u64) = (1, 256);

/// Full holds before the next larger one is tried: twice as many after each that ran into its end, half after each that
/// did not.
const GROWTH: (u32, u32) = (4, 256);

/// One queue's moderation.
#[derive(Debug)]
pub(super) struct Moderator {
    setting: Moderation,
    held: Option<Held>,
    /// Completions of a hold at most: learnt, or given.
    limit: u32,
    /// Holds that reached `limit` since it was last changed.
    full: u32,
    /// The last hold ran out of requests before it reached `limit`.
    ran_out: bool,
    /// So many full holds before `limit` grows.
    growth: u32,
    /// `limit` has grown since it last shrank.
    grew: bool,
    /// A hold has run out of requests before it reached its limit: grow slowly from then on.
    cautious: bool,
    /// How long the guest takes from an interrupt to its next request, smoothed; 0: not known yet.
    turnaround: u64,
    delivered: Option<u64>,
    /// When the last try failed, and how long the next one waits.
    failed: u64,
    pause_ns: u64,
    pause: u64,
    /// There is a CPU for the guest while this thread watches the ring.
    spare_cpu: bool,
    pub counts: HoldCounts,
}

impl Moderator {
    pub fn new(setting: Moderation) -> Moderator {
        let limit = match setting {
            Moderation::Fixed { completions, .. } => completions,
            Moderation::Off | Moderation::Auto => FIRST_COMPLETIONS,
        };
        Moderator {
            setting,
            held: None,
            limit,
            full: 0,
            growth: GROWTH.0,
            ran_out: false,
            grew: false,
            cautious: false,
            turnaround: 0,
            delivered: None,
            failed: 0,
            pause_ns: 0,
            pause: PAUSE.0,
            spare_cpu: std::thread::available_parallelism().map_or(1, |n| n.get()) > 1,
            counts: HoldCounts::default(),
        }
    }

    pub fn setting(&self) -> Moderation {
        self.setting
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The longest hold, from its first completion to its interrupt.
    fn max_ns(&self) -> u64 {
        1000 * match self.setting {
            Moderation::Fixed { max_us, .. } => u64::from(max_us),
            Moderation::Off | Moderation::Auto => u64::from(AUTO_MAX_US),
        }
    }

    /// The longest wait for the next request within a hold: twice as long as the guest takes after an interrupt, which
    /// includes the time to submit one.
    fn wait_ns(&self) -> u64 {
        match self.setting {
            Moderation::Fixed { .. } => self.max_ns(),
            Moderation::Off | Moderation::Auto => {
                (2 * self.turnaround).clamp(SHORTEST_WAIT, self.max_ns() / 2)
            }
        }
    }

    /// Whether requests that take `service` nanoseconds could keep a held interrupt beyond its bound.
    pub fn breaks_bound(&self, service: u64) -> bool {
        4 * service > self.max_ns()
    }

    /// Whether a device that takes `service` nanoseconds a request is slow beside this guest.
    pub fn is_slow(&self, service: u64) -> bool {
        2 * service > self.turnaround
    }

    /// The guest's next request was seen in an empty ring.
    pub fn arrived(&mut self, now: u64) {
        if let Some(held) = &mut self.held {
            held.last = now;
        }
        if let Some(delivered) = self.delivered.take() {
            // A pause of the application says nothing of its pace.
            let sample = now.saturating_sub(delivered).min(self.max_ns());
            self.turnaround = match self.turnaround {
                0 => sample,
                known => known - known / 8 + sample / 8,
            };
        }
    }

    /// Decides about a batch that was just published.
    pub fn published(&mut self, batch: Batch) -> Verdict {
        let Batch { now, completions, wanted, ring_empty, device_behind } = batch;
        if let Some(held) = &mut self.held {
            held.completions += completions;
            held.last = now;
            self.counts.merged += u64::from(completions);
            let (count, age) = (held.completions, now - held.since);
            if count >= self.limit || device_behind || age >= self.max_ns() {
                if count >= self.limit {
                    self.grow();
                }
                self.end(now);
                self.delivered = ring_empty.then_some(now);
                return Verdict::Deliver;
            }
            return Verdict::Hold;
        }
        if !wanted {
            return Verdict::Quiet;
        }
        if !device_behind && self.worth_a_try(&batch) {
            self.counts.held += 1;
            self.counts.merged += u64::from(completions.saturating_sub(1));
            self.held = Some(Held { since: now, last: now, completions });
            return Verdict::Hold;
        }
        self.delivered = ring_empty.then_some(now);
        Verdict::Deliver
    }

    fn worth_a_try(&mut self, batch: &Batch) -> bool {
        match self.setting {
            Moderation::Off => false,
            Moderation::Fixed { completions, .. } => batch.completions < completions,
            Moderation::Auto => {
                // More than one at a time is a sign that the guest did not wait for each: try sooner.
                let pause = if batch.completions > 1 { self.pause_ns / 16 } else { self.pause_ns };
                self.spare_cpu
                    && self.turnaround > 0
                    && batch.now >= self.failed + pause
                    && batch.completions < self.limit
            }
        }
    }

    /// Whether a held interrupt is due because nothing came in time; the caller delivers it.
    pub fn is_due(&mut self, now: u64) -> bool {
        let Some(held) = &self.held else { return false };
        let waited = now.saturating_sub(held.last);
        if waited < self.wait_ns() && now.saturating_sub(held.since) < self.max_ns() {
            return false;
        }
        let completions = held.completions;
        self.counts.expired += 1;
        if completions > 1 {
            // The guest has about as many in flight as came: hold fewer, so that no hold runs into its end.
            self.shrink(completions);
            (self.pause, self.pause_ns) = (PAUSE.0, 0);
        } else {
            self.counts.failed += 1;
            (self.failed, self.pause_ns) = (now, waited * self.pause);
            self.pause = (4 * self.pause).min(PAUSE.1);
        }
        self.end(now);
        true
    }

    /// The hold ends for another reason: its interrupt is delivered now.
    pub fn release(&mut self, now: u64) -> bool {
        let held = self.held.is_some();
        self.end(now);
        held
    }

    fn end(&mut self, now: u64) {
        if let Some(held) = self.held.take() {
            self.counts.longest_ns = self.counts.longest_ns.max(now.saturating_sub(held.since));
            self.delivered = Some(now);
        }
    }

    fn grow(&mut self) {
        (self.pause, self.pause_ns, self.ran_out) = (PAUSE.0, 0, false);
        if self.setting != Moderation::Auto {
            return;
        }
        self.full += 1;
        if !self.cautious {
            self.limit = (2 * self.limit).min(MOST_COMPLETIONS);
        } else if self.full >= self.growth {
            // A hold that grows beyond the guest's depth runs into its end: the more rarely, the more often it did.
            if self.grew {
                self.growth = (self.growth / 2).max(GROWTH.0);
            }
            (self.full, self.grew) = (0, true);
            self.limit = (self.limit + self.limit / 8 + 1).min(MOST_COMPLETIONS);
        }
    }

    fn shrink(&mut self, completions: u32) {
        // Only if the hold before ended in the same way: with a guest of fewer requests in flight every hold does, and
        // one that was only late this time must not cost what was learnt.
        let again = std::mem::replace(&mut self.ran_out, true);
        if self.setting == Moderation::Auto && again {
            self.limit = (self.limit - self.limit / 4).max(completions).max(2);
            (self.cautious, self.full, self.grew) = (true, 0, false);
            self.growth = (2 * self.growth).min(GROWTH.1);
        }
    }
}

#[cfg(test)]
#[path = "moderator_tests.rs"]
mod tests;
