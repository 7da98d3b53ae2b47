//! Decides when to hold an interrupt: a state machine over timestamps, without access to a ring or a clock.
//!
//! A fast device completes each request before the guest has submitted the next. Every request then costs a kick, a
//! wake-up and an interrupt, even if the guest has many more to submit. The queue alone cannot show that: the driver
//! has reaped all but one, and the application's other requests wait for the interrupt. So the device tries: it holds
//! the interrupt and watches the ring with kicks off. If the next request comes, holding paid, and the hold goes on.
//! If none comes, the guest was waiting for this interrupt, and the device tries less often.

use super::moderation::{AUTO_MAX_US, Moderation};
use crate::host::has_spare_cpu;

/// What to do about the interrupt for a batch that was just published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The driver wants no interrupt, and none is held.
    Quiet,
    /// Interrupt now.
    Deliver,
    /// Hold the interrupt, and watch the ring.
    Hold,
}

/// A published batch of completions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Time of publication, CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
    /// How many completions it has.
    pub completions: u32,
    /// Whether the driver wants an interrupt for it.
    pub wanted: bool,
    /// Whether the ring is empty: the guest submits its next request after the interrupt.
    pub ring_empty: bool,
    /// Whether the guest waits for the device: it has more requests in the ring or at the backend, and they take longer
    /// than the guest takes to submit. A held interrupt would only prevent guest and device from working at once.
    pub device_behind: bool,
}

/// Counts of holds and of their results. The queue's owner reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HoldCounts {
    /// Holds begun.
    pub held: u64,
    /// Completions without a separate interrupt, because one was held.
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
    /// Time of the last arrival.
    last: u64,
    completions: u32,
}

/// The most completions of a hold in `auto`.
const MOST_COMPLETIONS: u32 = 64;
/// The limit of completions per hold before anything was learnt.
const FIRST_COMPLETIONS: u32 = 4;
/// The shortest wait for the guest's next request: no guest submits faster than every few microseconds.
const SHORTEST_WAIT: u64 = 10_000;
/// The pause after a failed try, as a multiple of the time that the failure cost: after the first failure, and the
/// maximum. Each further failure makes it four times as long. A single failure may be an accident of timing; at depth
/// 1 the tries soon cost only 0.4 % of the time.
const PAUSE: (u64, u64) = (1, 256);

/// How many full holds precede a try with a larger limit: the minimum and the maximum. A limit at which holds run out
/// of requests doubles the number; one at which they do not halves it.
const GROWTH: (u32, u32) = (4, 256);

/// The moderation of one queue.
#[derive(Debug)]
pub(super) struct Moderator {
    setting: Moderation,
    held: Option<Held>,
    /// The most completions of a hold: learnt, or configured.
    limit: u32,
    /// The number of holds that reached `limit` since it last changed.
    full: u32,
    /// Whether the last hold ran out of requests before it reached `limit`.
    ran_out: bool,
    /// After this many full holds, `limit` grows.
    growth: u32,
    /// Whether `limit` has grown since it last shrank.
    grew: bool,
    /// Whether any hold has run out of requests before it reached its limit. From then on `limit` grows slowly.
    cautious: bool,
    /// The guest's time from an interrupt to its next request, smoothed, in nanoseconds; 0: not known yet.
    turnaround: u64,
    delivered: Option<u64>,
    /// The time of the last failed try; `pause_ns` is the pause after it.
    failed: u64,
    pause_ns: u64,
    pause: u64,
    /// Whether the guest has a CPU to run on while this thread watches the ring.
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
            spare_cpu: has_spare_cpu(),
            counts: HoldCounts::default(),
        }
    }

    pub fn setting(&self) -> Moderation {
        self.setting
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The longest hold in nanoseconds, from its first completion to its interrupt.
    fn max_ns(&self) -> u64 {
        1000 * match self.setting {
            Moderation::Fixed { max_us, .. } => u64::from(max_us),
            Moderation::Off | Moderation::Auto => u64::from(AUTO_MAX_US),
        }
    }

    /// The longest wait for the next request within a hold, in nanoseconds: twice the guest's time from an interrupt to
    /// its next request.
    fn wait_ns(&self) -> u64 {
        match self.setting {
            Moderation::Fixed { .. } => self.max_ns(),
            Moderation::Off | Moderation::Auto => {
                (2 * self.turnaround).clamp(SHORTEST_WAIT, self.max_ns() / 2)
            }
        }
    }

    /// Returns whether requests that take `service` nanoseconds could keep an interrupt held beyond its bound.
    pub fn breaks_bound(&self, service: u64) -> bool {
        4 * service > self.max_ns()
    }

    /// Returns whether a device that takes `service` nanoseconds per request is slow compared with this guest.
    pub fn is_slow(&self, service: u64) -> bool {
        2 * service > self.turnaround
    }

    /// Records that the guest's next request was seen in a ring that had been empty.
    pub fn arrived(&mut self, now: u64) {
        if let Some(held) = &mut self.held {
            held.last = now;
        }
        if let Some(delivered) = self.delivered.take() {
            // A long pause of the application is not the time that it needs, so the sample is limited.
            let sample = now.saturating_sub(delivered).min(self.max_ns());
            self.turnaround = match self.turnaround {
                0 => sample,
                known => known - known / 8 + sample / 8,
            };
        }
    }

    /// Decides about the interrupt for a batch that was just published.
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
                // More than one completion at a time shows that the guest does not wait for each one: try sooner.
                let pause = if batch.completions > 1 { self.pause_ns / 16 } else { self.pause_ns };
                self.spare_cpu
                    && self.turnaround > 0
                    && batch.now >= self.failed + pause
                    && batch.completions < self.limit
            }
        }
    }

    /// Returns whether a held interrupt is due because nothing came in time. If so, the caller delivers it.
    pub fn is_due(&mut self, now: u64) -> bool {
        let Some(held) = &self.held else { return false };
        let waited = now.saturating_sub(held.last);
        if waited < self.wait_ns() && now.saturating_sub(held.since) < self.max_ns() {
            return false;
        }
        let completions = held.completions;
        self.counts.expired += 1;
        if completions > 1 {
            // The guest has about as many requests in flight as came. Hold fewer, so that holds end full and not late.
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

    /// Ends the hold for another reason. Returns whether an interrupt was held, which the caller delivers now.
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
            // A limit above the guest's depth makes holds run out of requests. The more often that happened, the
            // longer this waits before it grows again.
            if self.grew {
                self.growth = (self.growth / 2).max(GROWTH.0);
            }
            (self.full, self.grew) = (0, true);
            self.limit = (self.limit + self.limit / 8 + 1).min(MOST_COMPLETIONS);
        }
    }

    fn shrink(&mut self, completions: u32) {
        // Shrink only if the hold before this one ran out as well. With too few requests in flight every hold does; a
        // guest that was late only once must not reset what was learnt.
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
