//! `doorbell bench`: the flags of the probe guest.

use clap::Parser;

use super::super::Failure;
use super::Common;
use crate::bench::Report;
use crate::bench::linux::{PeerKind, PeerSpec};
use crate::bench::probe::{PeerVmm, ProbeConfig, ProbeError, SessionError};
use crate::bench::progress::{Progress, Shown};
use crate::host::allowed_cpus;

/// An even number, because every second round runs in the opposite order. 12 can show a difference among up to 102 comparisons.
const ROUNDS: usize = 12;
const POLL_US: u32 = 50;

/// Flags of the probe guest only.
#[derive(Debug, Parser)]
#[command(next_help_heading = "The probe guest")]
pub(super) struct ProbeArgs {
    /// Measure only rows whose name contains TEXT; names look like "read-512-1 fast-mmio+irqfd null"
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Requests of each measurement at depth 1, 1 to 50000; twice as many at depth 32
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    requests: u32,
}

impl ProbeArgs {
    /// The configuration of the run, or the error for flags that contradict each other.
    pub(super) fn bench(self, common: &Common) -> Result<ProbeConfig, Failure> {
        self.config(common, &allowed_cpus())
    }

    fn config(self, common: &Common, cpus: &[usize]) -> Result<ProbeConfig, Failure> {
        let peer = match &common.peer[..] {
            [] => None,
            [PeerSpec { kind: PeerKind::Qemu, file: None }] => Some(PeerVmm::Qemu),
            _ => {
                return Err(Failure::usage(
                    "the probe guest takes --peer qemu, once; others need --guest linux",
                ));
            }
        };
        let pins = common.pin.clone().unwrap_or_default();
        pins.check_with(1, 1, cpus)?;
        let pin = match (pins.vcpus(1)[0], pins.iothread(0)) {
            (None, None) => None,
            (Some(vcpu), Some(io)) => Some((vcpu, io)),
            _ => return Err(Failure::usage("--pin: the probe pins both or neither: vcpu=CPU,iothread=CPU")),
        };
        Ok(ProbeConfig {
            rounds: common.rounds(ROUNDS),
            pace: common.pace(),
            requests: self.requests,
            poll_us: common.poll_us.unwrap_or(POLL_US),
            pin,
            sandbox: common.sandbox.unwrap_or_default(),
            filter: self.filter,
            peer,
            self_test: common.self_test,
        })
    }
}

/// Runs the bench, with progress on the terminal.
pub(super) fn measure(config: &ProbeConfig, progress: Progress) -> Result<Report, Failure> {
    // Made at the first call, because the number of steps is known only then.
    let mut shown: Option<Shown> = None;
    let mut current: Option<(usize, String)> = None;
    let result = crate::bench::probe::run(config, &mut |done, all, what| {
        let shown = shown.get_or_insert_with(|| Shown::new(progress, all));
        if let Some((step, what)) = current.take() {
            shown.end(step, &what, None);
        }
        shown.begin(done, what);
        current = Some((done, what.to_string()));
    });
    if let Some(shown) = shown {
        if let Some((step, what)) = current {
            shown.end(step, &what, None);
        }
        shown.finish();
    }
    Ok(result?)
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Failure {
        let code = match error {
            ProbeError::Session(SessionError::Vm(error)) => return error.into(),
            ProbeError::Session(SessionError::Thread(_)) | ProbeError::Floor(_) => 3,
            ProbeError::Session(_) | ProbeError::Block(..) => 1,
            ProbeError::Filter(_) => 2,
        };
        Failure { code, message: error.to_string() }
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
