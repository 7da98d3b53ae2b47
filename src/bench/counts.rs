//! The counters of a disk at one moment, summed over its queues.

use crate::virtio::VirtioBlk;

/// The counters of a disk since its creation, summed over its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Requests completed.
    pub requests: u64,
    /// Interrupts sent by irqfd.
    pub irqfd: u64,
    /// Interrupts sent by KVM_SIGNAL_MSI, at once or after an unmask.
    pub signal_msi: u64,
    /// Interrupts sent by INTx.
    pub intx: u64,
    /// Batches for which the driver wanted no interrupt.
    pub suppressed: u64,
    /// Interrupts that were held back, to merge more completions into them.
    pub held: u64,
    /// Completions that were merged into a held interrupt.
    pub merged: u64,
    /// Held interrupts that were sent because their time was over.
    pub expired: u64,
    /// Of these, interrupts into which no further completion was merged.
    pub failed: u64,
    /// Kicks that came by exit.
    pub kicks_exit: u64,
    /// Of these, kicks that an ioeventfd should have caught.
    pub kicks_missed: u64,
    /// System calls for interrupts and by the backend. The thread counts its waits itself.
    pub syscalls: u64,
}

impl DiskCounts {
    /// Reads the counters of `disk`.
    pub fn of(disk: &VirtioBlk) -> DiskCounts {
        let mut sum = DiskCounts::default();
        for queue in disk.counters() {
            let counts = queue.counts();
            sum.requests += counts.requests;
            sum.suppressed += counts.suppressed;
            sum.held += counts.held;
            sum.merged += counts.merged;
            sum.expired += counts.expired;
            sum.failed += counts.failed;
            sum.syscalls += counts.system_calls;
        }
        for interrupt in disk.interrupts() {
            let sent = interrupt.counts().sent();
            sum.irqfd += sent.irqfd;
            sum.signal_msi += sent.signal_msi + sent.pending;
            sum.intx += sent.intx;
        }
        for queue in disk.view().queues {
            sum.kicks_exit += queue.kicks_exit;
            sum.kicks_missed += queue.kicks_missed;
        }
        sum
    }

    /// Interrupts by all paths.
    pub fn interrupts(&self) -> u64 {
        self.irqfd + self.signal_msi + self.intx
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &DiskCounts) {
        *self = self.zip(more, |sum, more| sum + more);
    }

    /// The counts since `earlier`.
    pub fn since(&self, earlier: &DiskCounts) -> DiskCounts {
        self.zip(earlier, |now, earlier| now - earlier)
    }

    fn zip(&self, other: &DiskCounts, f: impl Fn(u64, u64) -> u64) -> DiskCounts {
        DiskCounts {
            requests: f(self.requests, other.requests),
            irqfd: f(self.irqfd, other.irqfd),
            signal_msi: f(self.signal_msi, other.signal_msi),
            intx: f(self.intx, other.intx),
            suppressed: f(self.suppressed, other.suppressed),
            held: f(self.held, other.held),
            merged: f(self.merged, other.merged),
            expired: f(self.expired, other.expired),
            failed: f(self.failed, other.failed),
            kicks_exit: f(self.kicks_exit, other.kicks_exit),
            kicks_missed: f(self.kicks_missed, other.kicks_missed),
            syscalls: f(self.syscalls, other.syscalls),
        }
    }
}
