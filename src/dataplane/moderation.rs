//! When to hold an interrupt: the decision, as a state machine over time stamps that knows no ring and no clock.
//!
//! A quick device completes each request before the guest has submitted the next. Every request then costs a kick, a
//! wake-up and an interrupt, although the guest has many more to submit. The queue alone cannot show that: the driver
//! has reaped all but one, and the application's other requests wait behind the interrupt. So the device tries: it
//! holds the interrupt and watches the ring with kicks off. If the next request comes, holding paid, and it goes on.
//! If none comes, the guest was waiting for this interrupt, and the next tries are made rarer.

use std::fmt;
use std::str::FromStr;

/// How a queue's interrupts are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moderation {
    /// Every completion that the driver wants to hear of interrupts at once.
    Off,
    /// Holds as long as that pays: how many completions and how long is learnt from what past holds brought.
    #[default]
    Auto,
    /// Holds up to this many completions, and at most this long.
    Fixed {
        /// Completions, 1 to 1024.
        completions: u32,
        /// Microseconds, 1 to 100,000.
        max_us: u32,
    },
}

/// The longest time that [`Moderation::Auto`] holds an interrupt, in microseconds.
pub const AUTO_MAX_US: u32 = 2000;

impl Moderation {
    /// Largest values of [`Moderation::Fixed`].
    pub const MOST: (u32, u32) = (1024, 100_000);

    /// One word for an atomic: 0 is off, [`u64::MAX`] auto, else completions and microseconds.
    pub(super) fn to_word(self) -> u64 {
        match self {
            Moderation::Off => 0,
            Moderation::Auto => u64::MAX,
            Moderation::Fixed { completions, max_us } => u64::from(completions) << 32 | u64::from(max_us),
        }
    }

    pub(super) fn from_word(word: u64) -> Moderation {
        match word {
            0 => Moderation::Off,
            u64::MAX => Moderation::Auto,
            _ => Moderation::Fixed { completions: (word >> 32) as u32, max_us: word as u32 },
        }
    }
}

impl fmt::Display for Moderation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moderation::Off => f.write_str("off"),
            Moderation::Auto => f.write_str("auto"),
            Moderation::Fixed { completions, max_us } => write!(f, "{completions}:{max_us}"),
        }
    }
}

impl FromStr for Moderation {
    type Err = ();

    /// `auto`, `off`, or `N:US` (also `N,US`).
    fn from_str(text: &str) -> Result<Moderation, ()> {
        match text {
            "off" => return Ok(Moderation::Off),
            "auto" => return Ok(Moderation::Auto),
            _ => {}
        }
        let number = |text: &str, most: u32| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n| digits && (1..=most).contains(n)).ok_or(())
        };
        let (completions, max_us) = text.split_once([':', ',']).ok_or(())?;
        let (completions, max_us) =
            (number(completions, Moderation::MOST.0)?, number(max_us, Moderation::MOST.1)?);
        Ok(Moderation::Fixed { completions, max_us })
    }
}

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
/// After failed tries the next one waits for this many times the time that the failure cost, doubling between the two
/// bounds. At depth 1 a failed try then costs at most 1.6 % of the time, and soon 0.4 %.
const PAUSE: (u64, u64) = (64, 256);

/// One queue's moderation.
#[derive(Debug)]
pub(super) struct Moderator {
    setting: Moderation,
    held: Option<Held>,
    /// Completions of a hold at most: learnt, or given.
    limit: u32,
    /// Holds that reached `limit` since it was last changed.
    full: u32,
    /// A hold has run out of requests before it reached its limit: grow slowly from then on.
    cautious: bool,
    /// How long the guest takes from an interrupt to its next request, smoothed; 0: not known yet.
    turnaround: u64,
    delivered: Option<u64>,
    /// No try before this.
    pause_until: u64,
    pause: u64,
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
            cautious: false,
            turnaround: 0,
            delivered: None,
            pause_until: 0,
            pause: PAUSE.0,
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

    /// The longest wait for the next request within a hold: as long as the guest takes after an interrupt. A request
    /// that needs longer would not have come later with the interrupt.
    fn wait_ns(&self) -> u64 {
        match self.setting {
            Moderation::Fixed { .. } => self.max_ns(),
            Moderation::Off | Moderation::Auto => self.turnaround.clamp(SHORTEST_WAIT, self.max_ns() / 2),
        }
    }

    /// Whether requests that take `service` nanoseconds could keep a held interrupt beyond its bound.
    pub fn breaks_bound(&self, service: u64) -> bool {
        4 * service > self.max_ns()
    }

    /// Whether a device that takes `service` nanoseconds a request is slow beside this guest.
    pub fn is_slow(&self, service: u64) -> bool {
        4 * service > self.turnaround
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
                // More than one at a time is a sign that the guest did not wait for each.
                let sign = batch.completions > 1;
                self.turnaround > 0
                    && (sign || batch.now >= self.pause_until)
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
            self.pause = PAUSE.0;
        } else {
            self.counts.failed += 1;
            self.pause_until = now + waited * self.pause;
            self.pause = (2 * self.pause).min(PAUSE.1);
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
        self.pause = PAUSE.0;
        if self.setting != Moderation::Auto {
            return;
        }
        self.full += 1;
        if !self.cautious {
            self.limit = (2 * self.limit).min(MOST_COMPLETIONS);
        } else if self.full >= (MOST_COMPLETIONS / self.limit).max(4) {
            // A hold that grows beyond the guest's depth runs into its end: rare where that costs much.
            self.full = 0;
            self.limit = (self.limit + self.limit / 8 + 1).min(MOST_COMPLETIONS);
        }
    }

    fn shrink(&mut self, completions: u32) {
        if self.setting == Moderation::Auto {
            self.limit = (completions - completions / 4).max(2);
            (self.cautious, self.full) = (true, 0);
        }
    }
}

#[cfg(test)]
#[path = "moderation_tests.rs"]
mod tests;
