//! The two places where a lost wake-up could hide, as functions over bare words, so that tests/loom.rs can check every
//! interleaving of exactly this code. `super::atomic` is `std::sync::atomic` here and loom's there.

use super::atomic::{AtomicU16, Ordering, fence};

/// Stores the used index, then loads what the driver asked for (`used_event`, or `avail.flags`).
pub fn publish(used_index: &AtomicU16, index: u16, threshold: &AtomicU16) -> u16 {
    // Release: the used entries are visible before the index.
    used_index.store(index.to_le(), Ordering::Release);
    // StoreLoad between our store of used.idx and our load of used_event (or avail.flags). The driver does the
    // reverse: stores used_event, then loads used.idx. Without both fences each may miss the other's store, and the
    // last completion of a burst would sit there without an interrupt.
    fence(Ordering::SeqCst);
    u16::from_le(threshold.load(Ordering::Relaxed))
}

/// Stores the threshold for kicks (`avail_event`, or `used.flags`), then loads the available index.
pub fn ask_for_kicks(threshold: &AtomicU16, value: u16, avail_index: &AtomicU16) -> u16 {
    threshold.store(value.to_le(), Ordering::Relaxed);
    // StoreLoad between our store of avail_event (or used.flags) and our load of avail.idx; the driver stores
    // avail.idx, then loads avail_event. Without both, a request could be left with neither kick nor notice.
    fence(Ordering::SeqCst);
    u16::from_le(avail_index.load(Ordering::Relaxed))
}

/// Whether going from `old` to `new` passed `event` (`vring_need_event`, virtio 1.2, 2.7.7.1).
pub fn need_event(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
