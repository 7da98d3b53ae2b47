//! Guest RAM.

use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::MachineError;
use super::layout::{HIGH_RAM_START, LOW_RAM_END};

/// Guest RAM as every room sees it.
pub type Ram = GuestMemoryMmap<()>;

/// The ranges that `size` bytes of RAM fill: up to 3 GiB below the hole, the rest from 4 GiB on.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![(0, low)];
    if size > low {
        ranges.push((HIGH_RAM_START, size - low));
    }
    ranges
}

/// Maps `size` bytes of RAM, untouched and unreserved, and asks for transparent huge pages.
///
/// # Errors
/// The host has no address space for it.
pub fn allocate(size: u64) -> Result<Arc<Ram>, MachineError> {
    let ranges: Vec<_> =
        ranges(size).into_iter().map(|(base, len)| (GuestAddress(base), len as usize)).collect();
    let ram = Ram::from_ranges(&ranges)
        .map_err(|e| MachineError::Host(format!("{} MiB of guest RAM cannot be mapped: {e}", size >> 20)))?;
    for region in ram.iter() {
        // SAFETY: the range is a mapping that was made above and stays; the advice changes no contents. A kernel
        // without huge pages refuses, which costs speed only.
        unsafe {
            libc::madvise(region.as_ptr().cast(), region.len() as usize, libc::MADV_HUGEPAGE);
            libc::madvise(region.as_ptr().cast(), region.len() as usize, libc::MADV_DONTDUMP);
        }
    }
    Ok(Arc::new(ram))
}

/// Makes `ram` the VM's memory, one slot for each region.
///
/// # Errors
/// KVM refused a slot.
pub fn register(vm: &VmFd, ram: &Ram) -> Result<(), MachineError> {
    for (slot, region) in ram.iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the region is a live mapping of that length, and the machine keeps `ram` until the VM is closed.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(|e| MachineError::kvm("KVM_SET_USER_MEMORY_REGION", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::layout::{GIB, MIB};

    #[test]
    fn small_ram_is_one_range() {
        assert_eq!(ranges(128 * MIB), [(0, 128 * MIB)]);
        assert_eq!(ranges(3 * GIB), [(0, 3 * GIB)]);
    }

    #[test]
    fn large_ram_goes_on_above_the_hole() {
        assert_eq!(ranges(3 * GIB + MIB), [(0, 3 * GIB), (4 * GIB, MIB)]);
        assert_eq!(ranges(8 * GIB), [(0, 3 * GIB), (4 * GIB, 5 * GIB)]);
    }

    #[test]
    fn eight_gib_map_without_being_touched() {
        let ram = allocate(8 * GIB).unwrap();
        assert_eq!(ram.iter().map(|r| r.len()).sum::<u64>(), 8 * GIB);
        assert!(ram.find_region(GuestAddress(9 * GIB - 1)).is_some());
        assert!(ram.find_region(GuestAddress(9 * GIB)).is_none());
        assert!(ram.find_region(GuestAddress(LOW_RAM_END)).is_none());
    }
}
