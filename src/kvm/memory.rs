use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use super::{KvmError, MemoryRange, VmIoctls};
use crate::host::Locked;

/// The lower slot numbers are reserved for RAM.
const FIRST: u32 = 32;
/// The number of slots that every kernel offers (`KVM_CAP_NR_MEMSLOTS`: 32764 on current kernels, 509 on old ones).
const LIMIT: u32 = 509;

/// Allocates slot numbers for guest memory that is not RAM: mapped BARs.
#[derive(Debug)]
pub struct MemorySlots {
    vm: Arc<dyn VmIoctls>,
    taken: Mutex<BTreeSet<u32>>,
}

impl MemorySlots {
    /// Returns an allocator in which all slots except those of RAM are free.
    pub fn new(vm: Arc<dyn VmIoctls>) -> Arc<MemorySlots> {
        Arc::new(MemorySlots { vm, taken: Mutex::default() })
    }

    /// Maps `range.host` into the guest at `range.guest`: accesses do not exit (KVM API 4.35).
    ///
    /// # Errors
    /// No slot is free, or the range overlaps another one (EEXIST).
    ///
    /// # Safety
    /// The host range stays mapped while the slot lives, and tolerates any access by the guest.
    pub unsafe fn map(self: &Arc<Self>, range: MemoryRange) -> Result<MemorySlot, KvmError> {
        let fail = |source| KvmError::Ioctl {
            ioctl: "KVM_SET_USER_MEMORY_REGION",
            what: format!("{:#x} bytes at {:#x}", range.len, range.guest),
            source,
        };
        let mut taken = self.taken.locked();
        let number = (FIRST..LIMIT).find(|n| !taken.contains(n));
        let number = number.ok_or_else(|| fail(io::Error::from_raw_os_error(libc::ENOSPC)))?;
        // SAFETY: the caller's promise, kept by MemorySlot until it is dropped.
        unsafe { self.vm.set_memory_slot(number, range) }.map_err(fail)?;
        taken.insert(number);
        Ok(MemorySlot { slots: self.clone(), number, range })
    }
}

/// A range that is mapped into the guest. Dropping it unmaps it: when drop returns, the guest cannot reach it.
#[derive(Debug)]
pub struct MemorySlot {
    slots: Arc<MemorySlots>,
    number: u32,
    range: MemoryRange,
}

impl MemorySlot {
    /// Returns the range that is mapped.
    pub fn range(&self) -> MemoryRange {
        self.range
    }
}

impl Drop for MemorySlot {
    fn drop(&mut self) {
        // SAFETY: length 0 removes; nothing is mapped by it.
        let _ = unsafe { self.slots.vm.set_memory_slot(self.number, MemoryRange { len: 0, ..self.range }) };
        self.slots.taken.locked().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::testing::FakeVm;

    #[test]
    fn a_slot_is_mapped_while_it_lives_and_its_number_is_used_again() {
        let vm = FakeVm::new();
        let slots = MemorySlots::new(vm.clone());
        let range = |guest| MemoryRange { guest, len: 0x1000, host: 0x7000_0000 };
        // SAFETY: the fake maps nothing.
        let map = |guest| unsafe { slots.map(range(guest)) };
        let first = map(0x1000).unwrap();
        let second = map(0x2000).unwrap();
        assert_eq!(vm.memory(), [(32, range(0x1000)), (33, range(0x2000))]);
        assert!(map(0x2000).is_err(), "it overlaps");
        drop(first);
        assert_eq!(map(0x5000).unwrap().range(), range(0x5000));
        drop(second);
        assert_eq!(vm.memory(), []);
    }
}
