//! The device's side of a virtqueue, in both formats. [`SplitRing`] and [`PackedRing`] do the same to a driver that lays
//! out its memory differently; everything above sees a [`Ring`].

mod chain;
mod error;
mod packed;
mod split;

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use super::QueueLayout;

pub use chain::{Chain, Head};
pub use error::RingError;
use packed::PackedRing;
use split::SplitRing;

/// The device's side of one virtqueue.
///
/// One thread owns it. `pop` takes requests and `push` adds completions. `publish` shows all completions to the driver
/// with one store, and returns whether the driver wants an interrupt.
#[derive(Debug)]
pub enum Ring {
    /// virtio 1.2, 2.7.
    Split(SplitRing),
    /// virtio 1.2, 2.8.
    Packed(PackedRing),
}

/// Calls the method of the format at hand. The branch goes the same way for as long as a queue runs.
macro_rules! either {
    ($ring:expr, $inner:ident => $call:expr) => {
        match $ring {
            Ring::Split($inner) => $call,
            Ring::Packed($inner) => $call,
        }
    };
}

impl Ring {
    /// Resolves the rings of a new queue to host addresses.
    ///
    /// # Errors
    /// [`RingError::Layout`].
    pub fn new(memory: Arc<GuestMemoryMmap>, layout: QueueLayout) -> Result<Ring, RingError> {
        Ok(match layout.packed {
            true => Ring::Packed(PackedRing::new(memory, layout)?),
            false => Ring::Split(SplitRing::new(memory, layout)?),
        })
    }

    /// Returns the number of entries.
    pub fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Returns the next available and the next used position, for display: an index (split), or an offset with the wrap
    /// counter in bit 15 (packed).
    pub fn indices(&self) -> (u16, u16) {
        either!(self, ring => ring.indices())
    }

    /// Returns whether the driver has made something available.
    pub fn has_avail(&self) -> bool {
        either!(self, ring => ring.has_avail())
    }

    /// Takes the next request into `chain`. Returns `false` if there is none.
    ///
    /// # Errors
    /// The driver broke a rule of the ring. Take nothing more from it.
    #[inline]
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, RingError> {
        either!(self, ring => ring.pop(chain))
    }

    /// Adds the completion of a request that [`Ring::pop`] gave. The driver sees it after the next [`Ring::publish`].
    #[inline]
    pub fn push(&mut self, head: Head, written: u32) {
        either!(self, ring => ring.push(head, written))
    }

    /// Returns whether there are completions that are not published.
    pub fn has_unpublished(&self) -> bool {
        self.unpublished() != 0
    }

    /// Returns the number of completions that are not published.
    pub fn unpublished(&self) -> u16 {
        either!(self, ring => ring.unpublished())
    }

    /// Publishes all completions with one store. Returns whether the driver wants an interrupt for them (virtio 1.2,
    /// 2.7.7 and 2.8.10).
    pub fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }

    /// Asks the driver not to kick.
    pub fn disable_kicks(&mut self) {
        either!(self, ring => ring.disable_kicks())
    }

    /// Asks the driver to kick for the next request. Returns whether a request came before the driver could see that.
    /// If so, drain the ring again instead of sleeping.
    pub fn enable_kicks(&mut self) -> bool {
        either!(self, ring => ring.enable_kicks())
    }
}
