//! The host's counters at one moment, and what was added between two.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::assembly::Assembly;
use crate::bench::counts::DiskCounts;
use crate::dataplane::LoopHandle;
use crate::machine::vcpu::ExitCounters;
use crate::virtio::VirtioBlk;

/// Counts since the start, or between two moments, of one disk and of the vCPUs. `None`: this host cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The disk's.
    pub disk: DiskCounts,
    /// Kicks by ioeventfd.
    pub kicks_ioeventfd: Option<u64>,
    /// Waits of the disk's I/O thread, a system call each.
    pub waits: u64,
    /// Exits of all vCPUs to the VMM.
    pub exits_to_user: u64,
    /// Exits of all vCPUs.
    pub exits: Option<u64>,
}

impl Counts {
    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let option = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_sub(b?));
        Counts {
            disk: self.disk.since(&earlier.disk),
            kicks_ioeventfd: option(self.kicks_ioeventfd, earlier.kicks_ioeventfd),
            waits: self.waits - earlier.waits,
            exits_to_user: self.exits_to_user - earlier.exits_to_user,
            exits: option(self.exits, earlier.exits),
        }
    }

    /// Adds `more`: the same row in another round.
    pub fn add(&mut self, more: &Counts) {
        let option = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        self.disk.add(&more.disk);
        self.kicks_ioeventfd = option(self.kicks_ioeventfd, more.kicks_ioeventfd);
        self.waits += more.waits;
        self.exits_to_user += more.exits_to_user;
        self.exits = option(self.exits, more.exits);
    }

    /// System calls of the disk's I/O thread.
    pub fn syscalls(&self) -> u64 {
        self.disk.syscalls + self.waits
    }
}

/// Where the counts of each disk are read.
pub struct Sources {
    /// Each with its I/O thread, which serves this disk only.
    disks: Vec<(Arc<VirtioBlk>, Option<LoopHandle>)>,
    vcpus: Vec<Arc<ExitCounters>>,
}

impl Sources {
    /// Those of a machine whose disk n runs on I/O thread n.
    pub fn of(assembly: &Assembly) -> Sources {
        // Every one of them runs: each has its disk.
        let threads = assembly.io_loops();
        let disk = |(n, device): (usize, &Arc<VirtioBlk>)| (device.clone(), threads.get(n).cloned());
        Sources {
            disks: assembly.disks().iter().enumerate().map(disk).collect(),
            vcpus: assembly.machine().exit_counters().to_vec(),
        }
    }

    /// The counts of every disk now, with those of the vCPUs in each.
    pub fn read(&self) -> Vec<Counts> {
        let exits_to_user = self.vcpus.iter().map(|vcpu| vcpu.total()).sum();
        let exits = self.vcpus.iter().map(|vcpu| vcpu.all_exits()).sum();
        let counts = |(disk, thread): &(Arc<VirtioBlk>, Option<LoopHandle>)| Counts {
            disk: DiskCounts::of(disk),
            kicks_ioeventfd: (0..disk.counters().len()).map(|n| disk.kicks_ioeventfd(n)).sum(),
            waits: thread.as_ref().map_or(0, |thread| thread.counters().waits.load(Ordering::Relaxed)),
            exits_to_user,
            exits,
        };
        self.disks.iter().map(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_two_moments_cannot_tell_stays_unknown() {
        let early = Counts { waits: 10, kicks_ioeventfd: Some(3), exits: None, ..Counts::default() };
        let late = Counts { waits: 25, kicks_ioeventfd: Some(8), exits: Some(9), ..Counts::default() };
        let mut sum = late.since(&early);
        assert_eq!((sum.waits, sum.kicks_ioeventfd, sum.exits), (15, Some(5), None));
        sum.add(&Counts { waits: 1, kicks_ioeventfd: Some(1), exits: Some(1), ..Counts::default() });
        assert_eq!((sum.syscalls(), sum.kicks_ioeventfd, sum.exits), (16, Some(6), None));
    }
}
