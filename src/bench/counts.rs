//! The counters of a disk, summed up at one moment.

use crate::virtio::VirtioBlk;

/// What a disk did so far, all queues together.
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
    /// Batches for which the driver wanted none.
    pub suppressed: u64,
    /// Interrupts that were held, to merge more completions into them.
    pub held: u64,
    /// Completions that needed no interrupt of their own, because one was held.
    pub merged: u64,
    /// Held interrupts that were sent because nothing more came in time.
    pub expired: u64,
    /// Of these, holds that brought no further completion.
    pub failed: u64,
    /// Kicks that came by exit.
    pub kicks_exit: u64,
    /// Of these, kicks that an ioeventfd should have caught.
    pub kicks_missed: u64,
    /// Ring-backs and the backend's system calls; the waits are the thread's.
    pub syscalls: u64,
}

impl DiskCounts {
    /// Those of `disk` now.
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
        self.requests += more.requests;
        self.irqfd += more.irqfd;
        self.signal_msi += more.signal_msi;
        self.intx += more.intx;
        self.suppressed += more.suppressed;
        self.held += more.held;
        self.merged += more.merged;
        self.expired += more.expired;
        self.failed += more.failed;
        self.kicks_exit += more.kicks_exit;
        self.kicks_missed += more.kicks_missed;
        self.syscalls += more.syscalls;
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &DiskCounts) -> DiskCounts {
        DiskCounts {
            requests: self.requests - earlier.requests,
            irqfd: self.irqfd - earlier.irqfd,
            signal_msi: self.signal_msi - earlier.signal_msi,
            intx: self.intx - earlier.intx,
            suppressed: self.suppressed - earlier.suppressed,
            held: self.held - earlier.held,
            merged: self.merged - earlier.merged,
            expired: self.expired - earlier.expired,
            failed: self.failed - earlier.failed,
            kicks_exit: self.kicks_exit - earlier.kicks_exit,
            kicks_missed: self.kicks_missed - earlier.kicks_missed,
            syscalls: self.syscalls - earlier.syscalls,
        }
    }
}
