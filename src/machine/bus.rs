//! The MMIO and I/O port buses: which device answers at an address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What answers on a bus. Any vCPU thread may call at any time; nothing a guest does may panic.
pub trait BusDevice: Send + Sync {
    /// A guest load of `data.len()` (1 to 8) bytes at `offset` within the device's range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// A guest store.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range is taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{base:#x}+{len:#x} overlaps a device or the end of the bus")]
pub struct Overlap {
    /// First address asked for.
    pub base: u64,
    /// Bytes asked for.
    pub len: u64,
}

#[derive(Clone)]
struct Entry {
    base: u64,
    /// Last address, so that a range may end with the bus.
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// One bus. Changes are rare (a guest moves a BAR), look-ups are every exit: each vCPU looks up in a [`BusView`] of
/// its own, which costs one shared load, no lock and no shared store while nothing changes.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, never overlapping; replaced as a whole.
    entries: Mutex<Arc<Vec<Entry>>>,
    /// Counts replacements.
    generation: AtomicU64,
}

impl Bus {
    /// An empty bus.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<Bus> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, mut guard: MutexGuard<'_, Arc<Vec<Entry>>>, entries: Vec<Entry>) {
        *guard = Arc::new(entries);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Lets `device` answer at `base..base + len`.
    ///
    /// # Errors
    /// [`Overlap`] if another device has a part of it; nothing changes then.
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

    /// Takes away the device at `base`. Accesses that other vCPUs began before may still reach it.
    pub fn remove(&self, base: u64) {
        let guard = self.lock();
        let entries = guard.iter().filter(|e| e.base != base).cloned().collect();
        self.replace(guard, entries);
    }

    /// Takes away all devices: they hold what holds the bus (the host bridge its devices and both buses).
    pub fn clear(&self) {
        self.replace(self.lock(), Vec::new());
    }

    /// A view for one thread.
    pub fn view(self: &Arc<Self>) -> BusView {
        let generation = self.generation.load(Ordering::Acquire);
        let entries = self.lock().clone();
        BusView { bus: self.clone(), entries, generation }
    }
}

/// One thread's look into a [`Bus`].
pub struct BusView {
    bus: Arc<Bus>,
    entries: Arc<Vec<Entry>>,
    generation: u64,
}

impl BusView {
    fn find(&mut self, address: u64) -> Option<(u64, &dyn BusDevice)> {
        // The counter is read before the entries: a change in between makes the next look-up refresh once more.
        let generation = self.bus.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.entries = self.bus.lock().clone();
            self.generation = generation;
        }
        let after = self.entries.partition_point(|e| e.base <= address);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (address <= entry.last).then(|| (address - entry.base, &*entry.device))
    }

    /// A guest load; where nothing answers it reads all ones, as on a PC.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A guest store; where nothing answers it is dropped.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address) {
            device.write(offset, data);
        }
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
