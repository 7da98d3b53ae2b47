use super::super::probe_abi::{GuestJob, kind, op, order, wait};
use super::floor::{Answer, Style};

/// Reads at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub name: &'static str,
    pub depth: u32,
}

pub(super) const WORKLOADS: [Workload; 2] =
    [Workload { name: "read-512-1", depth: 1 }, Workload { name: "read-512-32", depth: 32 }];

impl Workload {
    /// One block of it on a device: `requests` at depth 1, else twice as many.
    pub fn job(self, device: usize, requests: u32) -> GuestJob {
        GuestJob {
            kind: kind::IO,
            device: device as u32,
            depth: self.depth,
            requests: if self.depth == 1 { requests } else { 2 * requests },
            size: 512,
            op: op::READ,
            wait: wait::SPIN,
            order: order::SEQUENTIAL,
            ..GuestJob::default()
        }
    }
}

/// What one block measures; the number is that of a device.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Floor(Style, Answer),
    KvmInterrupt,
    Disk(Workload, usize),
    Peer(Workload, usize),
}
