//! What `doorbell run --stats` wrote, for assertions.

use serde_json::Value;

/// All disks of a run.
#[derive(Debug)]
pub struct Stats(pub Value);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct DiskStats<'a>(pub &'a Value);

impl Stats {
    /// The disk with that serial.
    pub fn disk(&self, serial: &str) -> DiskStats<'_> {
        let disks = self.0["disks"].as_array().expect("stats have no disks");
        DiskStats(disks.iter().find(|d| d["serial"] == serial).unwrap_or_else(|| panic!("no disk {serial}")))
    }

    pub fn disks(&self) -> impl Iterator<Item = DiskStats<'_>> {
        self.0["disks"].as_array().expect("stats have no disks").iter().map(DiskStats)
    }
}

impl DiskStats<'_> {
    /// A counter of one queue: "requests", "interrupts/irqfd".
    pub fn queue(&self, queue: usize, counter: &str) -> u64 {
        let value = self.0["queues"][queue].pointer(&format!("/{counter}"));
        value.and_then(Value::as_u64).unwrap_or_else(|| panic!("no {counter} of queue {queue} in {}", self.0))
    }

    /// The same, of all queues.
    pub fn sum(&self, counter: &str) -> u64 {
        (0..self.queues()).map(|queue| self.queue(queue, counter)).sum()
    }

    pub fn queues(&self) -> usize {
        self.0["queues"].as_array().map_or(0, Vec::len)
    }

    pub fn serial(&self) -> &str {
        self.0["serial"].as_str().unwrap_or("?")
    }
}
