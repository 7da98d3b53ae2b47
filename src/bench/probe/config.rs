use std::fmt;

use crate::bench::pace::Pace;
use crate::host::sandbox::SandboxMode;

/// What the probe bench measures, and for how long.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Rounds: how often every row is measured.
    pub rounds: usize,
    /// Round trips of each block at depth 1; a block at depth 32 has twice as many requests.
    pub requests: u32,
    /// Longest busy-poll of the polling rows, in microseconds; 0: no polling rows.
    pub poll_us: u32,
    /// Host CPUs of the vCPU and of the I/O threads.
    pub pin: Option<(usize, usize)>,
    /// Whether the threads of our VMs are confined.
    pub sandbox: SandboxMode,
    /// Only rows whose name ("read-512-1 fast-mmio+irqfd null") contains this.
    pub filter: Option<String>,
    /// The reference VMM to measure in the same run.
    pub peer: Option<PeerVmm>,
    /// Only one path, as two disks: what a verdict then says is false.
    pub self_test: bool,
    /// When it ends, besides at its last round.
    pub pace: Pace,
}

impl fmt::Display for ProbeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProbeConfig { rounds, requests, poll_us, .. } = self;
        match self.self_test {
            true => {
                write!(f, "probe: fast-mmio+irqfd against itself, {rounds} rounds of {requests} requests")?;
            }
            false => write!(
                f,
                "probe: every path, {rounds} rounds of {requests} requests, polling rows with {poll_us} us"
            )?,
        }
        match self.pin {
            Some((vcpu, io)) => write!(f, ", vCPU on CPU {vcpu}, I/O threads on CPU {io}"),
            None => write!(f, ", nothing pinned"),
        }
    }
}

/// A reference VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerVmm {
    /// qemu-system-x86_64, with the same guest.
    Qemu,
}

/// `Row::job` of the floor: the bare ping-pong without virtio.
pub(super) const FLOOR_JOB: &str = "floor";

/// Size of each disk.
pub(super) const DISK_BYTES: u64 = 16 << 20;
