//! The host's counters at one moment, and what was added between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::assembly::Assembly;
use crate::dataplane::{Interrupt, LoopHandle};
use crate::machine::vcpu::ExitCounters;
use crate::virtio::VirtioBlk;

/// Counts since the start, or between two moments. `None`: this host cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that the disk completed.
    pub requests: u64,
    /// Interrupts by irqfd.
    pub irqfd: u64,
    /// Interrupts by KVM_SIGNAL_MSI.
    pub signal_msi: u64,
    /// Interrupts by any path.
    pub interrupts: u64,
    /// Batches without an interrupt.
    pub suppressed: u64,
    /// Kicks by ioeventfd.
    pub kicks_ioeventfd: Option<u64>,
    /// Kicks by exit.
    pub kicks_exit: u64,
    /// Kicks by exit that should not have been.
    pub kicks_missed: u64,
    /// System calls of the disk's I/O thread.
    pub syscalls: u64,
    /// Exits of all vCPUs to the VMM.
    pub exits_to_user: u64,
    /// Exits of all vCPUs.
    pub exits: Option<u64>,
}

impl Counts {
    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let option = |a: Option<u64>, b: Option<u64>| Some(a?.wrapping_sub(b?));
        Counts {
            requests: self.requests.wrapping_sub(earlier.requests),
            irqfd: self.irqfd.wrapping_sub(earlier.irqfd),
            signal_msi: self.signal_msi.wrapping_sub(earlier.signal_msi),
            interrupts: self.interrupts.wrapping_sub(earlier.interrupts),
            suppressed: self.suppressed.wrapping_sub(earlier.suppressed),
            kicks_ioeventfd: option(self.kicks_ioeventfd, earlier.kicks_ioeventfd),
            kicks_exit: self.kicks_exit.wrapping_sub(earlier.kicks_exit),
            kicks_missed: self.kicks_missed.wrapping_sub(earlier.kicks_missed),
            syscalls: self.syscalls.wrapping_sub(earlier.syscalls),
            exits_to_user: self.exits_to_user.wrapping_sub(earlier.exits_to_user),
            exits: option(self.exits, earlier.exits),
        }
    }

    /// Both together: the same row in another round.
    pub fn plus(&self, other: &Counts) -> Counts {
        let option = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        Counts {
            requests: self.requests + other.requests,
            irqfd: self.irqfd + other.irqfd,
            signal_msi: self.signal_msi + other.signal_msi,
            interrupts: self.interrupts + other.interrupts,
            suppressed: self.suppressed + other.suppressed,
            kicks_ioeventfd: option(self.kicks_ioeventfd, other.kicks_ioeventfd),
            kicks_exit: self.kicks_exit + other.kicks_exit,
            kicks_missed: self.kicks_missed + other.kicks_missed,
            syscalls: self.syscalls + other.syscalls,
            exits_to_user: self.exits_to_user + other.exits_to_user,
            exits: option(self.exits, other.exits),
        }
    }
}

/// Where the counts of each disk are read.
pub struct Sources {
    disks: Vec<DiskSource>,
    vcpus: Vec<Arc<ExitCounters>>,
}

struct DiskSource {
    device: Arc<VirtioBlk>,
    interrupts: Vec<Interrupt>,
    /// The I/O thread, which serves this disk only.
    thread: Option<LoopHandle>,
}

impl Sources {
    /// Those of a machine whose disk n runs on I/O thread n.
    pub fn of(assembly: &Assembly) -> Sources {
        // Every one of them runs: each has its disk.
        let threads = assembly.io_loops();
        let disk = |(n, device): (usize, &Arc<VirtioBlk>)| DiskSource {
            device: device.clone(),
            interrupts: device.interrupts(),
            thread: threads.get(n).cloned(),
        };
        Sources {
            disks: assembly.disks().iter().enumerate().map(disk).collect(),
            vcpus: assembly.machine().exit_counters().to_vec(),
        }
    }

    /// The counts of every disk now, with those of the vCPUs in each.
    pub fn read(&self) -> Vec<Counts> {
        let exits_to_user = self.vcpus.iter().map(|vcpu| vcpu.total()).sum();
        let exits = self.vcpus.iter().map(|vcpu| vcpu.all_exits()).sum();
        self.disks.iter().map(|disk| Counts { exits_to_user, exits, ..disk.read() }).collect()
    }
}

impl DiskSource {
    fn read(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counts = Counts { kicks_ioeventfd: Some(0), ..Counts::default() };
        for (n, queue) in self.device.view().queues.iter().enumerate() {
            let caught = counts.kicks_ioeventfd.zip(self.device.kicks_ioeventfd(n));
            counts.kicks_ioeventfd = caught.map(|(sum, kicks)| sum + kicks);
            counts.kicks_exit += queue.kicks_exit;
            counts.kicks_missed += queue.kicks_missed;
        }
        for queue in self.device.counters() {
            counts.requests += load(&queue.requests);
            counts.suppressed += load(&queue.suppressed);
            counts.syscalls += load(&queue.system_calls);
        }
        for interrupt in &self.interrupts {
            let sent = interrupt.counts();
            counts.irqfd += load(&sent.irqfd);
            counts.signal_msi += load(&sent.signal_msi);
            counts.interrupts += load(&sent.irqfd) + load(&sent.signal_msi) + load(&sent.intx);
        }
        counts.syscalls += self.thread.iter().map(|thread| load(&thread.counters().waits)).sum::<u64>();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_two_moments_cannot_tell_stays_unknown() {
        let early = Counts { requests: 10, kicks_ioeventfd: Some(3), exits: None, ..Counts::default() };
        let late = Counts { requests: 25, kicks_ioeventfd: Some(8), exits: Some(9), ..Counts::default() };
        let delta = late.since(&early);
        assert_eq!((delta.requests, delta.kicks_ioeventfd, delta.exits), (15, Some(5), None));
        let sum = delta.plus(&Counts {
            requests: 1,
            kicks_ioeventfd: Some(1),
            exits: Some(1),
            ..Counts::default()
        });
        assert_eq!((sum.requests, sum.kicks_ioeventfd, sum.exits), (16, Some(6), None));
    }
}
