//! Makes rows of the guest's results and the host's counts.

use std::collections::BTreeMap;

use super::counts::{Counts, Passed};
use super::fio::Histogram;
use super::fio_job::FioJob;
use super::marker::Mark;
use super::peer::Done;
use super::sample::{Results, Sample, sample};
use super::variant::Variant;
use crate::backend::BackendKind;
use crate::bench::{Row, Schedule, fill_ratios, per_request};
use crate::vfio::IrqPath;

/// The version of fio that `results` are of.
pub fn fio_version(results: &Results) -> Option<String> {
    results.fio("0.json").ok().map(|measured| measured.version)
}

/// One row per job and path, and the ratios. `peers`: what the reference VMMs have measured.
///
/// # Errors
/// A step that the guest did not finish, or whose result cannot be read: one sentence.
pub fn rows(
    schedule: &Schedule<FioJob, Variant>,
    results: &Results,
    marks: &[Mark],
    mut peers: Done,
    common: &Row,
    backend: BackendKind,
) -> Result<Vec<Row>, String> {
    let mut rounds: BTreeMap<(usize, usize), Vec<Option<Sample>>> = BTreeMap::new();
    for (number, step) in schedule.steps().into_iter().enumerate() {
        let (job, path) = (&schedule.jobs[step.job], &schedule.paths[step.path]);
        let sample = match path {
            Variant::Peer(_) => peers.samples.remove(&number),
            _ => Some(
                sample(number, step.path, results, marks)
                    .map_err(|why| format!("step {number} ({job} on {path}) has no result: {why}"))?,
            ),
        };
        rounds.entry((step.job, step.path)).or_default().push(sample);
    }
    let row = |((job, n), rounds): (&(usize, usize), &Vec<Option<Sample>>)| {
        let (job, path) = (&schedule.jobs[*job], &schedule.paths[*n]);
        let depth = Some(job.depth().into());
        let mut row = Row { job: job.to_string(), depth, ..path.name(common, backend) };
        if let Some(why) = peers.absent.get(n) {
            return Row { not_here: Some(why.clone()), ..row };
        }
        let samples: Vec<&Sample> = rounds.iter().flatten().collect();
        row.round_iops = rounds.iter().map(|round| Some(round.as_ref()?.fio.iops)).collect();
        row.round_p50_ns = rounds.iter().map(|round| round.as_ref()?.fio.latency.median()).collect();
        match path {
            Variant::Disk(..) => fill_disk(fill(row, &samples), &samples),
            Variant::Passed(spec) => fill_passed(fill(row, &samples), &samples, spec.irq),
            Variant::Peer(_) => fill_peer(fill(row, &samples), &samples),
        }
    };
    let mut rows: Vec<Row> = rounds.iter().map(row).collect();
    fill_ratios(&mut rows);
    Ok(rows)
}

fn total(samples: &[&Sample]) -> Counts {
    let add = |mut sum: Counts, more: Counts| {
        sum.add(&more);
        sum
    };
    samples.iter().map(|sample| sample.counts).reduce(add).unwrap_or_default()
}

/// Fields that every disk has.
fn fill(named: Row, samples: &[&Sample]) -> Row {
    let mut latency = Histogram::default();
    samples.iter().for_each(|sample| latency.add(&sample.fio.latency));
    let counts = total(samples);
    let (requests, seconds) =
        samples.iter().fold((0, 0.0), |sum, s| (sum.0 + s.fio.requests, sum.1 + s.fio.seconds));
    Row {
        iops: (seconds > 0.0).then(|| requests as f64 / seconds),
        min_ns: latency.min(),
        mean_ns: latency.mean(),
        p50_ns: latency.percentile(50.0),
        p90_ns: latency.percentile(90.0),
        p99_ns: latency.percentile(99.0),
        p999_ns: latency.percentile(99.9),
        guest_interrupts: samples.iter().map(|sample| sample.guest_interrupts).sum(),
        exits: counts.exits,
        exits_to_user: Some(counts.exits_to_user),
        ..named
    }
}

/// Fields that only our disks have.
fn fill_disk(named: Row, samples: &[&Sample]) -> Row {
    let counts = total(samples);
    let disk = counts.disk;
    Row {
        requests: Some(disk.requests),
        interrupts: Some(disk.interrupts()),
        interrupts_irqfd: Some(disk.irqfd),
        interrupts_signal_msi: Some(disk.signal_msi),
        interrupts_suppressed: Some(disk.suppressed),
        holds: Some(disk.held),
        holds_merged: Some(disk.merged),
        holds_expired: Some(disk.expired),
        holds_failed: Some(disk.failed),
        kicks_ioeventfd: counts.kicks_ioeventfd,
        kicks_exit: Some(disk.kicks_exit),
        kicks_missed: Some(disk.kicks_missed),
        iothread_syscalls: Some(counts.syscalls()),
        io_thread_cpu_ns_per_request: per_request(counts.cpu_ns, Some(disk.requests)),
        ..named
    }
}

/// Fields of a passed-through device. Its requests bypass the VMM; fio counts them. The host counts the interrupts that it
/// handles itself (none where they are posted), the VMM those that it passes on. Its doorbells are ordinary memory and no
/// thread of ours serves it, so kicks and system calls are not counted.
fn fill_passed(named: Row, samples: &[&Sample], irq: IrqPath) -> Row {
    let Passed { host, through_vmm } = total(samples).passed;
    let (irqfd, signal_msi) = match irq {
        // An interrupt that the VMM read while the vector was masked goes through the irqfd at unmask, and counts there too.
        IrqPath::Kernel => (host, 0),
        IrqPath::User => (0, through_vmm),
    };
    Row {
        requests: Some(samples.iter().map(|sample| sample.fio.requests).sum()),
        interrupts: Some(host),
        interrupts_irqfd: Some(irqfd),
        interrupts_signal_msi: Some(signal_msi),
        ..named
    }
}

/// Fields of a reference VMM: fio's requests, and what KVM counts for every VMM. What it sends we do not see, only what its
/// guest takes.
fn fill_peer(named: Row, samples: &[&Sample]) -> Row {
    let requests = samples.iter().map(|sample| sample.fio.requests).sum();
    Row { requests: Some(requests).filter(|_| !samples.is_empty()), exits_to_user: None, ..named }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
