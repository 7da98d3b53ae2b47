//! The two places where a wake-up could be lost, for both formats of a ring, as functions over plain atomics, so that
//! tests/loom.rs can check every interleaving of exactly this code. `super::atomic` is `std::sync::atomic` here and loom's version there.

use super::atomic::{AtomicU16, AtomicU32, Ordering, fence};

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

/// The same in a packed ring: stores the flags of the first used descriptor, then loads and returns the driver's event
/// suppression structure, position and flags in one word.
pub fn publish_packed(flags: &AtomicU16, value: u16, event: &AtomicU32) -> u32 {
    // Release: the used descriptors become visible before the flags of the first, which the driver reads first.
    flags.store(value.to_le(), Ordering::Release);
    // StoreLoad, as in `publish`: the driver stores its event structure, then loads these flags.
    fence(Ordering::SeqCst);
    u32::from_le(event.load(Ordering::Relaxed))
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

/// The same in a packed ring: stores the device's event suppression structure, then loads and returns the flags of the next
/// descriptor.
pub fn ask_for_kicks_packed(event: &AtomicU32, value: u32, flags: &AtomicU16) -> u16 {
    event.store(value.to_le(), Ordering::Relaxed);
    // StoreLoad, as in `ask_for_kicks`: the driver stores the descriptor's flags, then loads this structure.
    fence(Ordering::SeqCst);
    u16::from_le(flags.load(Ordering::Relaxed))
}

/// Returns whether the step of an index from `old` to `new` passed `event` (`vring_need_event`, virtio 1.2, 2.7.7.1).
pub fn need_event(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Returns the event position of a packed ring as an index for `need_event`. `event` has the offset in bits 0 to 14 and the
/// wrap counter in bit 15; `wrap` is the counter of the step's end, whose offset is the new index.
pub fn event_in_lap(event: u16, wrap: bool, size: u16) -> u16 {
    let offset = event & 0x7fff;
    // Another counter means the lap before, whose offsets lie `size` behind.
    if (event >> 15 == 1) == wrap { offset } else { offset.wrapping_sub(size) }
}
