//! How a worker holds interrupts.

use std::sync::atomic::Ordering;

use super::super::moderation::Moderation;
use super::super::moderator::{Batch, Moderator, Verdict};
use super::super::tracer::Tracer;
use super::Worker;
use crate::host::monotonic_ns;

impl<S: Tracer> Worker<S> {
    /// Decides about the interrupt for a batch that was just published.
    pub(super) fn moderate(&mut self, completions: u32, wanted: bool) -> Verdict {
        let setting = self.setup.moderation.get();
        if setting != self.moderator.setting() {
            let held = self.moderator.is_held();
            self.holds_before = self.counters().counts();
            self.moderator = Moderator::new(setting);
            if held {
                return Verdict::Deliver;
            }
        }
        if setting == Moderation::Off {
            return if wanted { Verdict::Deliver } else { Verdict::Quiet };
        }
        let now = monotonic_ns();
        // If a request takes the device about as long as an interrupt takes the guest, the two should overlap.
        let service = now.saturating_sub(self.begun) / u64::from(completions.max(1));
        let slow = self.moderator.is_slow(service);
        let ring_empty = !self.ring.has_avail();
        let outstanding = self.in_flight() > 0 || !ring_empty;
        // The bound is checked only between requests. A device whose requests take a large part of it must not hold.
        let device_behind = slow && outstanding || self.moderator.breaks_bound(service);
        let verdict = self.moderator.published(Batch { now, completions, wanted, ring_empty, device_behind });
        self.show_holds();
        verdict
    }

    /// Returns whether an interrupt is held. While one is, the thread must watch the ring and must not sleep.
    pub fn is_held(&self) -> bool {
        self.moderator.is_held()
    }

    /// Sends the held interrupt if nothing came in time. Returns whether one is still held.
    pub fn check_held(&mut self, now: u64) -> bool {
        if self.moderator.is_due(now) {
            self.show_holds();
            self.deliver_held();
        }
        self.moderator.is_held()
    }

    /// Sends the held interrupt, if there is one, without waiting for more completions.
    pub fn release_held(&mut self) {
        if self.moderator.is_held() {
            self.moderator.release(monotonic_ns());
            self.show_holds();
            self.deliver_held();
        }
    }

    fn deliver_held(&mut self) {
        self.deliver(&mut |_| false);
        self.tracer.flush(&self.setup.counters.trace);
    }

    fn show_holds(&self) {
        let (counts, shown) = (self.moderator.counts, self.counters());
        let base = self.holds_before;
        shown.held.store(base.held + counts.held, Ordering::Relaxed);
        shown.merged.store(base.merged + counts.merged, Ordering::Relaxed);
        shown.expired.store(base.expired + counts.expired, Ordering::Relaxed);
        shown.failed.store(base.failed + counts.failed, Ordering::Relaxed);
        shown.longest_hold_ns.store(base.longest_hold_ns.max(counts.longest_ns), Ordering::Relaxed);
    }
}
