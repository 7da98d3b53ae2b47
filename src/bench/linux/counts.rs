//! The host's counters at one moment, and the differences between two moments.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bench::counts::DiskCounts;
use crate::dataplane::LoopHandle;
use crate::machine::vcpu::ExitCounters;
use crate::vfio::VfioPci;
use crate::virtio::VirtioBlk;
use crate::vm::Vm;

/// Counts since the start, or between two moments, of one disk and of the vCPUs. `None`: this host does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The counters of the disk.
    pub disk: DiskCounts,
    /// Kicks by ioeventfd.
    pub kicks_ioeventfd: Option<u64>,
    /// Waits of the disk's I/O thread; each is a system call.
    pub waits: u64,
    /// CPU time of the disk's I/O thread, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Exits of all vCPUs to the VMM.
    pub exits_to_user: u64,
    /// Exits of all vCPUs.
    pub exits: Option<u64>,
    /// The interrupts of a passed-through device.
    pub passed: Passed,
}

/// Interrupts of a passed-through device, summed over its vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Interrupts that the host handled (its lines of /proc/interrupts).
    pub host: u64,
    /// Interrupts that the VMM read from an eventfd and passed on.
    pub through_vmm: u64,
}

impl Passed {
    fn of(device: &VfioPci) -> Passed {
        let report = device.report();
        Passed {
            host: report.iter().map(|vector| vector.host).sum(),
            through_vmm: report.iter().map(|vector| vector.through_vmm).sum(),
        }
    }
}

impl Counts {
    /// The counts since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        self.zip(earlier, self.disk.since(&earlier.disk), u64::saturating_sub)
    }

    /// Adds `more`: the same row in another round.
    pub fn add(&mut self, more: &Counts) {
        let mut disk = self.disk;
        disk.add(&more.disk);
        *self = self.zip(more, disk, |sum, more| sum + more);
    }

    fn zip(&self, other: &Counts, disk: DiskCounts, f: impl Fn(u64, u64) -> u64) -> Counts {
        let option = |a: Option<u64>, b: Option<u64>| Some(f(a?, b?));
        Counts {
            disk,
            kicks_ioeventfd: option(self.kicks_ioeventfd, other.kicks_ioeventfd),
            waits: f(self.waits, other.waits),
            cpu_ns: option(self.cpu_ns, other.cpu_ns),
            exits_to_user: f(self.exits_to_user, other.exits_to_user),
            exits: option(self.exits, other.exits),
            passed: Passed {
                host: f(self.passed.host, other.passed.host),
                through_vmm: f(self.passed.through_vmm, other.passed.through_vmm),
            },
        }
    }

    /// System calls of the disk's I/O thread.
    pub fn syscalls(&self) -> u64 {
        self.disk.syscalls + self.waits
    }
}

/// The sources of the counts of each disk.
pub struct Sources {
    /// Each disk with its I/O thread, which serves only this disk.
    disks: Vec<(Arc<VirtioBlk>, Option<LoopHandle>)>,
    passed: Vec<Arc<VfioPci>>,
    vcpus: Vec<Arc<ExitCounters>>,
}

impl Sources {
    /// The sources of a VM in which the first `disks` disks are measured, disk n on I/O thread n, and all passed-through
    /// devices.
    pub fn of(vm: &Vm, disks: usize) -> Sources {
        // All I/O threads run, because each has a disk.
        let threads = vm.io_loops();
        let disk = |(n, device): (usize, &Arc<VirtioBlk>)| (device.clone(), threads.get(n).cloned());
        Sources {
            disks: vm.disks().iter().take(disks).enumerate().map(disk).collect(),
            passed: vm.vfio().to_vec(),
            vcpus: vm.machine().exit_counters().to_vec(),
        }
    }

    /// Reads the counts of every disk, each with those of the vCPUs: first our disks, then passed-through ones.
    pub fn read(&self) -> Vec<Counts> {
        let vcpus = Counts {
            exits_to_user: self.vcpus.iter().map(|vcpu| vcpu.total()).sum(),
            exits: self.vcpus.iter().map(|vcpu| vcpu.all_exits()).sum(),
            ..Counts::default()
        };
        let disk = |(disk, thread): &(Arc<VirtioBlk>, Option<LoopHandle>)| Counts {
            disk: DiskCounts::of(disk),
            kicks_ioeventfd: (0..disk.counters().len()).map(|n| disk.kicks_ioeventfd(n)).sum(),
            cpu_ns: thread.as_ref().and_then(|thread| thread.counters().cpu_ns()),
            waits: thread.as_ref().map_or(0, |thread| thread.counters().waits.load(Ordering::Relaxed)),
            ..vcpus
        };
        let passed = |device: &Arc<VfioPci>| Counts { passed: Passed::of(device), ..vcpus };
        self.disks.iter().map(disk).chain(self.passed.iter().map(passed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_missing_at_one_of_two_moments_stays_unknown() {
        let early = Counts { waits: 10, kicks_ioeventfd: Some(3), exits: None, ..Counts::default() };
        let late = Counts {
            waits: 25,
            kicks_ioeventfd: Some(8),
            exits: Some(9),
            passed: Passed { host: 7, through_vmm: 2 },
            ..Counts::default()
        };
        let mut sum = late.since(&early);
        assert_eq!((sum.waits, sum.kicks_ioeventfd, sum.exits), (15, Some(5), None));
        sum.add(&Counts { waits: 1, kicks_ioeventfd: Some(1), exits: Some(1), ..Counts::default() });
        assert_eq!((sum.syscalls(), sum.kicks_ioeventfd, sum.exits), (16, Some(6), None));
        assert_eq!(sum.passed, Passed { host: 7, through_vmm: 2 });
    }
}
