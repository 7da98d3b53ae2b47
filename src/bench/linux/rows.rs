//! Makes rows from the guest's results and the host's counts.

use std::collections::BTreeMap;

use super::counts::{Counts, Passed};
use super::fio::{self, Histogram, Measured};
use super::fio_job::FioJob;
use super::marker::{BEGIN, END, EXITS_PER_MARK, Mark};
use super::script::serial;
use super::variant::Variant;
use crate::bench::{Row, Schedule, fill_ratios};
use crate::vfio::IrqPath;

/// The guest's results: files by name.
pub struct Results<'a> {
    files: BTreeMap<String, &'a [u8]>,
}

impl<'a> Results<'a> {
    /// Files as [`super::archive::untar`] finds them.
    pub fn new(files: Vec<(String, &'a [u8])>) -> Results<'a> {
        Results { files: files.into_iter().collect() }
    }

    /// A file's first line.
    pub fn line(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        text.lines().next().map(|line| line.trim().to_string())
    }

    /// A file as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// One step, measured from both sides.
#[derive(Debug)]
struct Sample {
    fio: Measured,
    counts: Counts,
    guest_interrupts: Option<u64>,
}

/// The version of fio that made `results`.
pub fn fio_version(results: &Results) -> Option<String> {
    fio::parse(results.files.get("0.json")?, false).ok().map(|measured| measured.version)
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
            let requests = end.counts[step.path].since(&begin.counts[step.path]).disk.requests as f64;
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
/// round that was not finished does not count, unless it is the first.
///
/// # Errors
/// Nothing was measured: one sentence.
pub fn rows(
    schedule: &Schedule<FioJob, Variant>,
    results: &Results,
    marks: &[Mark],
    common: &Row,
) -> Result<(Vec<Row>, usize), String> {
    type Rounds = Vec<Result<Sample, String>>;
    let mut rounds: BTreeMap<(usize, usize), Rounds> = BTreeMap::new();
    let done = rounds_done(schedule, marks);
    for (number, step) in schedule.steps().into_iter().enumerate().filter(|(_, s)| s.round < done.max(1)) {
        let reads_back = schedule.jobs[step.job].reads_back();
        let sample = sample(number, step.path, reads_back, results, marks);
        rounds.entry((step.job, step.path)).or_default().push(sample);
    }
    if rounds.values().flatten().all(Result::is_err) {
        return Err("the run ended before anything was measured".into());
    }
    let row = |((job, path), rounds): (&(usize, usize), &Rounds)| {
        let (job, path) = (&schedule.jobs[*job], schedule.paths[*path]);
        let named = Row { job: job.to_string(), depth: job.depth().map(u64::from), ..path.name(common) };
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
        }
    };
    let mut rows: Vec<Row> = rounds.iter().map(row).collect();
    fill_ratios(&mut rows);
    Ok((rows, done))
}

fn sample(
    number: usize,
    path: usize,
    reads_back: bool,
    results: &Results,
    marks: &[Mark],
) -> Result<Sample, String> {
    let find = |what| {
        let found = find(marks, number, what);
        found.and_then(|mark| mark.counts.get(path)).ok_or("the guest did not reach it")
    };
    let mut counts = find(END)?.since(find(BEGIN)?);
    // Subtract the cost of the second mark.
    counts.exits_to_user = counts.exits_to_user.saturating_sub(EXITS_PER_MARK);
    counts.exits = counts.exits.map(|exits| exits.saturating_sub(EXITS_PER_MARK));
    let json = results.files.get(&format!("{number}.json")).ok_or("fio left no output")?;
    let fio = fio::parse(json, reads_back).map_err(|e| format!("fio's output: {e}"))?;
    let irqs = |when: &str| {
        let device = results.line(&serial(path))?;
        let text = results.text(&format!("{number}.{when}"))?;
        Some(match device.strip_prefix("irqs ") {
            Some(numbers) => numbered_interrupts(&text, numbers),
            None => disk_interrupts(&text, &device),
        })
    };
    let guest_interrupts =
        irqs("after").zip(irqs("before")).map(|(after, before)| after.saturating_sub(before));
    Ok(Sample { fio, counts, guest_interrupts })
}

/// The interrupts of a virtio device in the text of /proc/interrupts: lines that end in "virtio1-req.0", or in "virtio1"
/// itself without MSI-X, but not the configuration's.
fn disk_interrupts(text: &str, device: &str) -> u64 {
    interrupts(text, |line| {
        line.split([' ', ',']).any(|word| {
            let rest = word.strip_prefix(device);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && rest != "-config")
        })
    })
}

/// The interrupts with these numbers in the text of /proc/interrupts.
fn numbered_interrupts(text: &str, numbers: &str) -> u64 {
    interrupts(text, |line| {
        line.split_once(':').is_some_and(|(label, _)| numbers.split(' ').any(|number| number == label.trim()))
    })
}

fn interrupts(text: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or("").split_whitespace().count();
    let count = |line: &str| {
        let numbers = line.split_whitespace().skip(1).take(cpus);
        numbers.filter_map(|number| number.parse::<u64>().ok()).sum::<u64>()
    };
    lines.filter(|line| wanted(line)).map(count).sum()
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

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
