//! Guest RAM.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

use super::MachineError;
use super::layout::{HIGH_RAM_START, LOW_RAM_END};

/// The type of guest RAM in all rooms.
pub type Ram = GuestMemoryMmap<()>;

/// Returns the (address, length) ranges of `size` bytes of RAM: up to 3 GiB below the hole, the rest from 4 GiB on.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![(0, low)];
    if size > low {
        ranges.push((HIGH_RAM_START, size - low));
    }
    ranges
}

/// The kind of host memory behind guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamBacking {
    /// The page size of hugetlbfs. `None`: ordinary memory, with transparent huge pages if the kernel has them.
    pub huge: Option<HugePage>,
    /// Whether every page is allocated before the guest runs.
    pub prefault: bool,
    /// Whether the RAM is a file in memory, which another process can map too, or private to this process.
    pub shared: bool,
}

/// A page size of hugetlbfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    TwoMib,
    /// 1 GiB.
    OneGib,
}

impl HugePage {
    /// Returns the size in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            HugePage::TwoMib => 2 << 20,
            HugePage::OneGib => 1 << 30,
        }
    }
}

/// KVM uses a large page only if guest and host address agree in all bits below the page size.
const ALIGNMENT: u64 = 2 << 20;

/// Maps `size` bytes of RAM as `backing` describes, aligned so that KVM can use large pages. Pages are allocated on
/// first use unless `prefault` is set.
///
/// # Errors
/// The host has too little address space or memory, or too few huge pages.
pub fn allocate(size: u64, backing: RamBacking) -> Result<Arc<Ram>, MachineError> {
    let mut regions = Vec::new();
    for (base, len) in ranges(size) {
        let mapping = match backing.huge {
            Some(_) if backing.shared => {
                let what =
                    "memory of huge pages is not shared with a vhost-user backend: leave out --hugepages";
                return Err(MachineError::Config(what.into()));
            }
            Some(page) => map_huge(len, page)?,
            None if backing.shared => map_shared(len).map_err(|e| cannot_map(size, &e))?,
            None => map_aligned(len, &MmapRegion::new).map_err(|e| cannot_map(size, &e))?,
        };
        let region = GuestRegionMmap::new(mapping, GuestAddress(base));
        regions.push(region.ok_or_else(|| cannot_map(size, &"its addresses wrap around"))?);
    }
    let ram = Ram::from_regions(regions).map_err(|e| cannot_map(size, &e))?;
    for region in ram.iter() {
        // SAFETY: the range is a live mapping that was made above. The advice changes no contents. A kernel without
        // huge pages refuses it, which only costs speed.
        unsafe {
            libc::madvise(region.as_ptr().cast(), region.len() as usize, libc::MADV_HUGEPAGE);
            libc::madvise(region.as_ptr().cast(), region.len() as usize, libc::MADV_DONTDUMP);
        }
        if backing.prefault {
            prefault(region.as_ptr(), region.len())?;
        }
    }
    Ok(Arc::new(ram))
}

fn cannot_map(size: u64, why: &dyn std::fmt::Display) -> MachineError {
    MachineError::Host(format!("{} MiB of guest RAM cannot be mapped: {why}", size >> 20))
}

/// Maps `len` bytes at a multiple of [`ALIGNMENT`]. The kernel places each mapping directly below the one before. So a
/// filler, as long as the misalignment, makes the next mapping aligned. A mapping of another thread may come in
/// between; then this tries again. After a few tries it accepts a misaligned mapping, which only costs speed.
fn map_aligned(
    len: u64,
    map: &dyn Fn(usize) -> Result<MmapRegion, MmapRegionError>,
) -> Result<MmapRegion, MmapRegionError> {
    let mut mapping = map(len as usize)?;
    for _ in 0..8 {
        let beyond = mapping.as_ptr() as u64 % ALIGNMENT;
        if beyond == 0 {
            break;
        }
        drop(mapping);
        let filler = MmapRegion::<()>::new(beyond as usize)?;
        mapping = map(len as usize)?;
        drop(filler);
    }
    Ok(mapping)
}

/// Maps `len` bytes of a file in memory, which the kernel frees when its last user closes it.
fn map_shared(len: u64) -> Result<MmapRegion, MmapRegionError> {
    // SAFETY: the name ends with 0. The call returns a new descriptor, or -1.
    let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(MmapRegionError::Mmap(std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len).map_err(MmapRegionError::Mmap)?;
    let file = Arc::new(file);
    map_aligned(len, &|len| MmapRegion::from_file(FileOffset::from_arc(file.clone(), 0), len))
}

/// Maps `len` bytes of huge pages. Such mappings are always aligned. The pages are reserved, so a guest cannot run out
/// of them later.
fn map_huge(len: u64, page: HugePage) -> Result<MmapRegion, MachineError> {
    let (bytes, wanted) = (page.bytes(), len.div_ceil(page.bytes()));
    if !len.is_multiple_of(bytes) {
        return Err(MachineError::Config(format!(
            "{} MiB of memory do not divide into huge pages of {} MiB; use a multiple of the page size",
            len >> 20,
            bytes >> 20
        )));
    }
    // MAP_HUGE_SHIFT (mmap(2)): the flags contain the logarithm of the size.
    let size = (bytes.trailing_zeros() as i32) << 26;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | size;
    MmapRegion::build(None, len as usize, libc::PROT_READ | libc::PROT_WRITE, flags).map_err(|error| {
        let directory = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", bytes >> 10);
        let read = |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).ok();
        match read("free_hugepages").and_then(|text| text.trim().parse::<u64>().ok()) {
            None => MachineError::Host(format!("this host has no huge pages of {} MiB", bytes >> 20)),
            Some(free) if free < wanted => MachineError::Host(format!(
                "{free} huge pages of {} MiB are free, {wanted} are needed: echo {wanted} >{directory}/nr_hugepages",
                bytes >> 20
            )),
            Some(_) => cannot_map(len, &error),
        }
    })
}

/// Makes the kernel allocate every page now (MADV_POPULATE_WRITE, Linux 5.14).
fn prefault(start: *mut u8, len: u64) -> Result<(), MachineError> {
    // SAFETY: `start` is a mapping of this length. Populating changes no contents.
    if unsafe { libc::madvise(start.cast(), len as usize, libc::MADV_POPULATE_WRITE) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(MachineError::Host(match error.raw_os_error() {
        Some(libc::EINVAL) => "memory cannot be prefaulted: Linux 5.14 or newer is needed".into(),
        _ => format!("{} MiB of memory cannot be prefaulted: {error}", len >> 20),
    }))
}

/// Makes `ram` the VM's memory, with one slot for each region (KVM API 4.35).
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
        let ram = allocate(8 * GIB, RamBacking::default()).unwrap();
        assert_eq!(ram.iter().map(|r| r.len()).sum::<u64>(), 8 * GIB);
        assert!(ram.find_region(GuestAddress(9 * GIB - 1)).is_some());
        assert!(ram.find_region(GuestAddress(9 * GIB)).is_none());
        assert!(ram.find_region(GuestAddress(LOW_RAM_END)).is_none());
    }

    #[test]
    fn guest_and_host_addresses_agree_below_2_mib_on_both_sides_of_the_hole() {
        for size in [130 * MIB, 3 * GIB + 6 * MIB] {
            for region in allocate(size, RamBacking::default()).unwrap().iter() {
                assert_eq!(region.as_ptr() as u64 % ALIGNMENT, region.start_addr().0 % ALIGNMENT);
            }
        }
    }

    #[test]
    fn too_few_huge_pages_is_one_sentence_that_says_what_to_do() {
        let huge = |page| RamBacking { huge: Some(page), prefault: false, shared: false };
        // No test machine reserves that many huge pages.
        let error = allocate(8 * GIB, huge(HugePage::OneGib)).err().map(|error| error.to_string());
        assert!(error.is_none_or(|e| e.contains("nr_hugepages") || e.contains("no huge pages")));
        let error = allocate(129 * MIB, huge(HugePage::TwoMib)).unwrap_err().to_string();
        assert!(error.contains("do not divide into huge pages of 2 MiB"), "{error}");
    }

    #[test]
    fn prefaulted_memory_is_there_before_anyone_touches_it() {
        let ram =
            allocate(128 * MIB, RamBacking { huge: None, prefault: true, ..RamBacking::default() }).unwrap();
        let region = ram.iter().next().unwrap();
        let mut resident = vec![0u8; 128 << 8];
        // SAFETY: the range is a mapping, and the buffer has a byte for each of its pages.
        let asked =
            unsafe { libc::mincore(region.as_ptr().cast(), region.len() as usize, resident.as_mut_ptr()) };
        assert_eq!((asked, resident.iter().filter(|page| **page & 1 == 1).count()), (0, 128 << 8));
    }
}
