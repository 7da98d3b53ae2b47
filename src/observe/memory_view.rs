//! What guest RAM is made of: large pages of the host, and large mappings in KVM's page tables.

use std::fs;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::kvm::KvmStats;
use crate::machine::Ram;

/// Guest RAM, and KVM's statistics of the VM.
pub struct MemoryParts {
    /// Guest RAM.
    pub ram: Arc<Ram>,
    /// `None` on a kernel without KVM_GET_STATS_FD (before 5.14).
    pub stats: Option<KvmStats>,
}

/// Guest RAM at this moment. Sizes in KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// Its size.
    pub size_kib: u64,
    /// Of it, what has been touched and is backed (`Rss` and hugetlb pages of /proc/self/smaps).
    pub resident_kib: u64,
    /// Of that, what is backed by huge pages, transparent or of hugetlbfs.
    pub huge_kib: u64,
    /// Mappings of 4 KiB in KVM's page tables (`pages_4k` of KVM_GET_STATS_FD); `None` if this kernel does not count them.
    pub kvm_pages_4k: Option<u64>,
    /// Mappings of 2 MiB.
    pub kvm_pages_2m: Option<u64>,
    /// Mappings of 1 GiB.
    pub kvm_pages_1g: Option<u64>,
}

impl MemoryParts {
    /// Reads /proc/self/smaps and KVM's statistics. What cannot be read counts as 0, or as `None`.
    pub fn view(&self) -> MemoryView {
        let regions = self.ram.iter().map(|region| (region.as_ptr() as u64, region.len()));
        let ranges: Vec<_> = regions.map(|(start, len)| (start, start + len)).collect();
        let (resident_kib, huge_kib) =
            backing(&fs::read_to_string("/proc/self/smaps").unwrap_or_default(), &ranges);
        let stats = self.stats.as_ref().and_then(|stats| stats.read().ok());
        let pages = |name| stats.as_ref().and_then(|stats| stats.get(name));
        MemoryView {
            size_kib: ranges.iter().map(|(start, end)| end - start).sum::<u64>() >> 10,
            resident_kib,
            huge_kib,
            kvm_pages_4k: pages("pages_4k"),
            kvm_pages_2m: pages("pages_2m"),
            kvm_pages_1g: pages("pages_1g"),
        }
    }
}

/// KiB that are resident, and KiB in huge pages, in those mappings of `smaps` (proc_pid_smaps(5)) that begin in one of the
/// ranges. Guest RAM is advised otherwise than the rest, so the kernel merges no other mapping into it. Pages of hugetlbfs are
/// not part of `Rss`.
fn backing(smaps: &str, ranges: &[(u64, u64)]) -> (u64, u64) {
    let (mut ours, mut resident, mut huge) = (false, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, _)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let start = u64::from_str_radix(start, 16).unwrap_or(0);
            ours = ranges.iter().any(|(from, to)| (*from..*to).contains(&start));
        } else if ours {
            let kib = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match first {
                "Rss:" => resident += kib,
                "AnonHugePages:" | "ShmemPmdMapped:" => huge += kib,
                "Private_Hugetlb:" | "Shared_Hugetlb:" => (resident, huge) = (resident + kib, huge + kib),
                _ => {}
            }
        }
    }
    (resident, huge)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::machine::{RamBacking, allocate};

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
Rss:                3072 kB
AnonHugePages:      2048 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr mr
7f0000400000-7f0000800000 rw-p 00000000 00:0f 7   /anon_hugepage (deleted)
Rss:                   0 kB
Private_Hugetlb:    4096 kB
7f0100000000-7f0100400000 rw-p 00000000 00:00 0   [heap]
Rss:                1000 kB
AnonHugePages:      1000 kB
";

    #[test]
    fn only_guest_ram_counts() {
        assert_eq!(backing(SMAPS, &[(0x7f00_0000_0000, 0x7f00_0080_0000)]), (3072 + 4096, 2048 + 4096));
        assert_eq!(backing(SMAPS, &[(0x7f00_0000_0000, 0x7f00_0040_0000)]), (3072, 2048));
        assert_eq!(backing(SMAPS, &[]), (0, 0));
        assert_eq!(backing("", &[(0, 1 << 40)]), (0, 0));
    }

    #[test]
    fn ram_that_was_touched_is_resident() {
        let ram = allocate(128 << 20, RamBacking::default()).unwrap();
        let parts = MemoryParts { ram: ram.clone(), stats: None };
        // Not asserted: that nothing is resident before. The kernel may merge the mapping with that of another test's RAM.
        assert_eq!(parts.view().size_kib, 128 << 10);
        ram.write_slice(&[1; 8192], GuestAddress(64 << 20)).unwrap();
        let after = parts.view();
        assert!(after.resident_kib >= 8 && after.huge_kib <= after.resident_kib, "{after:?}");
        assert_eq!(after.kvm_pages_2m, None);
    }
}
