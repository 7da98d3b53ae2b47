//! Makes rows from the guest's results and the host's counts.

use std::collections::BTreeMap;

use super::counts::{Counts, Passed};
use super::fio::Histogram;
use super::fio_job::FioJob;
use super::marker::{BEGIN, END, Mark};
use super::peer::Done;
use super::sample::{Results, Sample, sample};
use super::variant::Variant;
use crate::backend::BackendKind;
use crate::bench::{Row, Schedule, fill_ratios, per_request};
use crate::vfio::IrqPath;

/// The version of fio that made `results`.
pub fn fio_version(results: &Results) -> Option<String> {
    results.fio("0.json", false).ok().map(|measured| measured.version)
}

/// The first `rounds` rounds as the host alone counted them: names and rates, enough to say how far apart the rounds are.
/// fio's own times are known only when the guest has ended.
pub fn by_host(schedule: &Schedule<FioJob, Variant>, marks: &[Mark], runtime_s: f64) -> Vec<Row> {
    let rows = schedule.jobs.iter().flat_map(|job| schedule.paths.iter().map(move |_| job));
    let mut rows: Vec<Row> = rows.map(|job| Row { job: job.to_string(), ..Row::default() }).collect();
    for step in schedule.steps().into_iter().take(rounds_done(schedule, marks) * rows.len()).enumerate() {
        let (number, step) = step;
        let timed = schedule.jobs[step.job].seconds(runtime_s).is_some();
        let rate = find(marks, number, BEGIN).zip(find(marks, number, END)).map(|(begin, end)| {
            // A mark of a reference VMM has its own counts only.
            let of =
                |mark: &Mark| mark.counts.get(step.path).or(mark.counts.last()).copied().unwrap_or_default();
            let requests = of(end).since(&of(begin)).disk.requests as f64;
            // Where time ends the job, its number of requests is the rate: the marks' own times include fio's start.
            if timed { requests } else { requests * 1e9 / end.at_ns.saturating_sub(begin.at_ns) as f64 }
        });
        rows[step.job * schedule.paths.len() + step.path].round_iops.push(rate);
    }
    rows
}

fn find(marks: &[Mark], step: usize, what: u16) -> Option<&Mark> {
    marks.iter().find(|mark| (usize::from(mark.step), mark.what) == (step, what))
}

/// Rounds of which every step has ended.
fn rounds_done(schedule: &Schedule<FioJob, Variant>, marks: &[Mark]) -> usize {
    let steps = schedule.jobs.len() * schedule.paths.len() * schedule.rounds;
    let ended = marks.iter().filter(|mark| mark.what == END && usize::from(mark.step) < steps).count();
    ended / (schedule.jobs.len() * schedule.paths.len()).max(1)
}

/// One row per job and path with the ratios, and the number of rounds. A step without a result is a lost round of its row. A
/// round that was not finished does not count, unless it is the first. `peers`: what the
/// reference VMMs have measured.
///
/// # Errors
/// Nothing was measured: one sentence.
pub fn rows(
    schedule: &Schedule<FioJob, Variant>,
    results: &Results,
    marks: &[Mark],
    mut peers: Done,
    common: &Row,
    backend: BackendKind,
) -> Result<(Vec<Row>, usize), String> {
    type Rounds = Vec<Result<Sample, String>>;
    let mut rounds: BTreeMap<(usize, usize), Rounds> = BTreeMap::new();
    let done = rounds_done(schedule, marks);
    for (number, step) in schedule.steps().into_iter().enumerate().filter(|(_, s)| s.round < done.max(1)) {
        let reads_back = schedule.jobs[step.job].reads_back();
        let sample = match &schedule.paths[step.path] {
            Variant::Peer(_) => peers.samples.remove(&number).ok_or_else(|| "its step was lost".into()),
            _ => sample(number, step.path, reads_back, results, marks),
        };
        rounds.entry((step.job, step.path)).or_default().push(sample);
    }
    if rounds.values().flatten().all(Result::is_err) {
        return Err("the run ended before anything was measured".into());
    }
    let row = |((job, n), rounds): (&(usize, usize), &Rounds)| {
        let (job, path) = (&schedule.jobs[*job], &schedule.paths[*n]);
        let depth = job.depth().map(u64::from);
        let named = Row { job: job.to_string(), depth, ..path.name(common, backend) };
        if let Some(why) = peers.absent.get(n) {
            return Row { not_here: Some(why.clone()), ..named };
        }
        if let Some(Err(why)) = rounds.iter().find(|_| rounds.iter().all(Result::is_err)) {
            return Row { not_here: Some(why.clone()), ..named };
        }
        let samples: Vec<&Sample> = rounds.iter().flatten().collect();
        let of_round = |f: fn(&Sample) -> Option<f64>| {
            rounds.iter().map(|round| round.as_ref().ok().and_then(f)).collect()
        };
        let named = Row {
            round_iops: of_round(|sample| Some(sample.fio.iops)),
            round_p50_ns: of_round(|sample| sample.fio.latency.median()),
            ..named
        };
        match path {
            Variant::Disk(..) => fill_disk(fill(named, &samples), &samples),
            Variant::Passed(spec) => fill_passed(fill(named, &samples), &samples, spec.irq),
            Variant::Peer(_) => fill_peer(fill(named, &samples), &samples),
        }
    };
    let mut rows: Vec<Row> = rounds.iter().map(row).collect();
    fill_ratios(&mut rows);
    Ok((rows, done))
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
        histogram: latency.buckets(),
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
        // An interrupt that the VMM read while the vector was masked goes through the irqfd at unmask, and is counted there, too.
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

/// Fields of a reference VMM: fio's requests, and what KVM counts for every VMM. We do not see the interrupts that it
/// sends, only those that its guest takes.
fn fill_peer(named: Row, samples: &[&Sample]) -> Row {
    let requests = samples.iter().map(|sample| sample.fio.requests).sum();
    Row { requests: Some(requests).filter(|_| !samples.is_empty()), exits_to_user: None, ..named }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
