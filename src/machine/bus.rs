//! The MMIO and I/O port buses: they find the device at an address.

use crate::host::Locked;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A device on a bus. Any vCPU thread may call it at any time. No access of a guest may make it panic.
pub trait BusDevice: Send + Sync {
    /// Performs a guest load of `data.len()` (1 to 8) bytes at `offset` within the device's range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Performs a guest store, of the same sizes.
    fn write(&self, offset: u64, data: &[u8]);
}

/// The range overlaps a device that is already on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{base:#x}+{len:#x} overlaps a device or the end of the bus")]
pub struct Overlap {
    /// First address of the range.
    pub base: u64,
    /// Length of the range in bytes.
    pub len: u64,
}

#[derive(Clone)]
struct Entry {
    base: u64,
    /// The last address (inclusive, so that a range may end where the bus ends).
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// One bus. Changes are rare (a guest moves a BAR), but every exit makes a look-up. So each vCPU has a [`BusView`], in
/// which a look-up costs one shared load, and no lock or shared store while nothing changes.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, without overlaps. A change replaces the whole vector.
    entries: Mutex<Arc<Vec<Entry>>>,
    /// The number of replacements.
    generation: AtomicU64,
}

impl Bus {
    /// Returns an empty bus.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<Bus> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<Entry>>> {
        self.entries.locked()
    }

    fn replace(&self, mut guard: MutexGuard<'_, Arc<Vec<Entry>>>, entries: Vec<Entry>) {
        *guard = Arc::new(entries);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds `device` at `base..base + len`.
    ///
    /// # Errors
    /// [`Overlap`] if another device has a part of the range, or the range exceeds the bus. Then nothing changes.
    pub fn insert(&self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), Overlap> {
        let overlap = Overlap { base, len };
        let last = len.checked_sub(1).and_then(|n| base.checked_add(n)).ok_or(overlap)?;
        let guard = self.lock();
        if guard.iter().any(|e| e.base <= last && base <= e.last) {
            return Err(overlap);
        }
        let mut entries = guard.as_ref().clone();
        entries.insert(entries.partition_point(|e| e.base < base), Entry { base, last, device });
        self.replace(guard, entries);
        Ok(())
    }

    /// Removes the device at `base`. Accesses that other vCPUs began before may still reach it.
    pub fn remove(&self, base: u64) {
        let guard = self.lock();
        let entries = guard.iter().filter(|e| e.base != base).cloned().collect();
        self.replace(guard, entries);
    }

    /// Removes all devices. This breaks a reference cycle: the host bridge is on the buses and holds them.
    pub fn clear(&self) {
        self.replace(self.lock(), Vec::new());
    }

    /// Returns a view for one thread.
    pub fn view(self: &Arc<Self>) -> BusView {
        let generation = self.generation.load(Ordering::Acquire);
        let entries = self.lock().clone();
        BusView { bus: self.clone(), entries, generation }
    }
}

/// The look-ups of one thread in a [`Bus`].
pub struct BusView {
    bus: Arc<Bus>,
    entries: Arc<Vec<Entry>>,
    generation: u64,
}

impl BusView {
    fn find(&mut self, address: u64) -> Option<(u64, &dyn BusDevice)> {
        // Read the counter before the entries: if a change comes in between, the next look-up refreshes again.
        let generation = self.bus.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.entries = self.bus.lock().clone();
            self.generation = generation;
        }
        let after = self.entries.partition_point(|e| e.base <= address);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (address <= entry.last).then(|| (address - entry.base, &*entry.device))
    }

    /// Performs a guest load. An address without a device reads as all ones, as on a PC.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Performs a guest store. A store to an address without a device is dropped.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address) {
            device.write(offset, data);
        }
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
