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
    fio::parse(results.files.get("0.json")?).ok().map(|measured| measured.version)
}

/// One row per job and path, and the ratios.
///
/// # Errors
/// A step that the guest did not finish, or whose result cannot be read: one sentence.
pub fn rows(
    schedule: &Schedule<FioJob, Variant>,
    results: &Results,
    marks: &[Mark],
    common: &Row,
) -> Result<Vec<Row>, String> {
    let mut samples: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
    for (number, step) in schedule.steps().into_iter().enumerate() {
        let sample = sample(number, step.path, results, marks).map_err(|why| {
            let (job, path) = (&schedule.jobs[step.job], schedule.paths[step.path]);
            format!("step {number} ({job} on {path}) has no result: {why}")
        })?;
        samples.entry((step.job, step.path)).or_default().push(sample);
    }
    let row = |((job, path), samples): (&(usize, usize), &Vec<Sample>)| {
        let (job, path) = (&schedule.jobs[*job], schedule.paths[*path]);
        let named = Row { job: job.to_string(), depth: Some(job.depth().into()), ..path.name(common) };
        match path {
            Variant::Disk(..) => fill_disk(fill(named, samples), samples),
            Variant::Passed(spec) => fill_passed(fill(named, samples), samples, spec.irq),
        }
    };
    let mut rows: Vec<Row> = samples.iter().map(row).collect();
    fill_ratios(&mut rows);
    Ok(rows)
}

fn sample(number: usize, path: usize, results: &Results, marks: &[Mark]) -> Result<Sample, String> {
    let find = |what| {
        let found = marks.iter().find(|mark| (usize::from(mark.step), mark.what) == (number, what));
        found.and_then(|mark| mark.counts.get(path)).ok_or("the guest did not reach it")
    };
    let mut counts = find(END)?.since(find(BEGIN)?);
    // Subtract the cost of the second mark.
    counts.exits_to_user = counts.exits_to_user.saturating_sub(EXITS_PER_MARK);
    counts.exits = counts.exits.map(|exits| exits.saturating_sub(EXITS_PER_MARK));
    let json = results.files.get(&format!("{number}.json")).ok_or("fio left no output")?;
    let fio = fio::parse(json).map_err(|e| format!("fio's output: {e}"))?;
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

fn total(samples: &[Sample]) -> Counts {
    let add = |mut sum: Counts, more: Counts| {
        sum.add(&more);
        sum
    };
    samples.iter().map(|sample| sample.counts).reduce(add).unwrap_or_default()
}

/// Fields that every disk has.
fn fill(named: Row, samples: &[Sample]) -> Row {
    let mut latency = Histogram::default();
    samples.iter().for_each(|sample| latency.add(&sample.fio.latency));
    let counts = total(samples);
    let (requests, seconds) =
        samples.iter().fold((0, 0.0), |sum, s| (sum.0 + s.fio.requests, sum.1 + s.fio.seconds));
    Row {
        iops: (seconds > 0.0).then(|| requests as f64 / seconds),
        round_iops: samples.iter().map(|sample| Some(sample.fio.iops)).collect(),
        round_p50_ns: samples.iter().map(|sample| sample.fio.latency.median()).collect(),
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
fn fill_disk(named: Row, samples: &[Sample]) -> Row {
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

/// Fields of a passed-through device. Its requests bypass the VMM, so fio counts them. The host counts the interrupts that
/// it handles (none if they are posted), and the VMM those that it passes on. Kicks and system calls are not counted: its
/// doorbells are mapped into the guest, and no thread of ours serves it.
fn fill_passed(named: Row, samples: &[Sample], irq: IrqPath) -> Row {
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
