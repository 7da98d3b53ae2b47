use super::config::{FLOOR_JOB, ProbeConfig};
use super::floor::Floor;
use super::no_irqchip::NoIrqchip;
use super::peer::Peer;
use super::qemu::{PEER_VARIANTS, PeerVariant};
use super::session::Session;
use super::variants::Variant;
use super::work::Work;

/// Everything that blocks need. `run` schedules them, `blocks` runs one, `rows` makes a row from their sums.
pub(super) struct Bench<'a> {
    pub floor: Floor,
    pub session: Session,
    pub config: &'a ProbeConfig,
    pub variants: Vec<Variant>,
    /// What this host does not support, and why.
    pub absent: Vec<(Variant, String)>,
    /// `Err`: why this host cannot run it.
    pub no_irqchip: Result<NoIrqchip, String>,
    /// `None`: not requested; `Err`: why this host cannot run it.
    pub peer: Option<Result<Peer, String>>,
    pub ticks_per_second: f64,
    /// Whether guest and host read the same time-stamp counter; only then can one-way latencies be measured.
    pub agree: bool,
}

impl Bench<'_> {
    pub fn name(&self, work: Work) -> String {
        match work {
            Work::Floor(style, answer) => format!("{FLOOR_JOB} {style} {answer}"),
            Work::KvmInterrupt => format!("{FLOOR_JOB} exit kvm-interrupt"),
            Work::Disk(workload, n) => self.variants[n].name(workload),
            Work::Peer(workload, n) => self.peer_variant(n).name(workload),
        }
    }

    /// Device `n` of the reference VMM; called only if it runs.
    pub fn peer_variant(&self, n: usize) -> &'static PeerVariant {
        let running = self.peer.iter().flatten().next();
        running.and_then(|peer| peer.variants.get(n).copied()).unwrap_or(&PEER_VARIANTS[0])
    }
}
