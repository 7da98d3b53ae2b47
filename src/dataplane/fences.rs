//! The two places where a wake-up could be lost, as functions over plain atomics, so that tests/loom.rs can check every
//! interleaving of exactly this code. `super::atomic` is `std::sync::atomic` here and loom's version there.

use super::atomic::{AtomicU16, Ordering, fence};

/// Stores the used index, then loads and returns the driver's threshold (`used_event`, or `avail.flags`).
pub fn publish(used_index: &AtomicU16, index: u16, threshold: &AtomicU16) -> u16 {
    // Release: the used entries become visible before the index.
    used_index.store(index.to_le(), Ordering::Release);
    // StoreLoad between our store of used.idx and our load of used_event (or avail.flags). The driver does the
    // reverse: it stores used_event, then loads used.idx. Without both fences each side may miss the other's store,
    // and the last completion of a burst would stay in the ring without an interrupt.
    fence(Ordering::SeqCst);
    u16::from_le(threshold.load(Ordering::Relaxed))
}

/// Stores the threshold for kicks (`avail_event`, or `used.flags`), then loads and returns the available index.
pub fn ask_for_kicks(threshold: &AtomicU16, value: u16, avail_index: &AtomicU16) -> u16 {
    threshold.store(value.to_le(), Ordering::Relaxed);
    // StoreLoad between our store of avail_event (or used.flags) and our load of avail.idx. The driver does the
    // reverse: it stores avail.idx, then loads avail_event. Without both fences a request could stay in the ring: the
    // driver sends no kick, and this load does not see the request.
    fence(Ordering::SeqCst);
    u16::from_le(avail_index.load(Ordering::Relaxed))
}

/// Returns whether the step of an index from `old` to `new` passed `event` (`vring_need_event`, virtio 1.2, 2.7.7.1).
pub fn need_event(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
