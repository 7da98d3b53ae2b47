use super::super::probe_abi::{GuestJob, flag, kind, op, order, wait};
use super::floor::{Answer, Style};

/// Reads at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub name: &'static str,
    pub depth: u32,
    /// As Linux submits for an application: one request and one kick decision at a time. Otherwise the guest
    /// submits everything that one interrupt completed as one batch.
    pub one_by_one: bool,
}

pub(super) const WORKLOADS: [Workload; 3] = [
    Workload { name: "read-512-1", depth: 1, one_by_one: false },
    Workload { name: "read-512-32", depth: 32, one_by_one: false },
    Workload { name: "read-512-32-one-by-one", depth: 32, one_by_one: true },
];

/// The application's own time before each request, one by one.
const THINK_NS: f64 = 1500.0;

impl Workload {
    /// One block on a device: `requests` at depth 1, otherwise twice as many.
    pub fn job(self, device: usize, requests: u32, ticks_per_second: f64) -> GuestJob {
        let think = (THINK_NS * ticks_per_second / 1e9) as u64;
        GuestJob {
            kind: kind::IO,
            device: device as u32,
            depth: self.depth,
            requests: if self.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
            // Only the disk whose row is called packed offers it.
            flags: flag::PACKED | if self.one_by_one { flag::ONE_BY_ONE } else { 0 },
            gap: if self.one_by_one { think } else { 0 },
            ..GuestJob::default()
        }
    }
}

/// The work of one block; the number is a device's index.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Floor(Style, Answer),
    KvmInterrupt,
    Disk(Workload, usize),
    Peer(Workload, usize),
}
