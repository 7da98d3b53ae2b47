//! Prints a block as one line of JSON: counts, percentiles, and a histogram. Histograms of several rounds can be added.
//!
//! The histogram is a fixed array, because the probe has no heap. Hosts that read guest memory get every sample instead and
//! use hdrhistogram.

use crate::abi::*;
use crate::clock;
use crate::samples::Samples;
use crate::text::Line;
use core::fmt::Write;

/// Histogram buckets: four per power of two of nanoseconds.
const BUCKETS: usize = 4 * 40;

/// Returns the lowest value of a bucket, in nanoseconds.
fn bucket_floor(bucket: usize) -> u64 {
    let (power, quarter) = (bucket / 4, (bucket % 4) as u64);
    if power < 2 { 1 << power } else { (4 + quarter) << (power - 2) }
}

fn bucket_of(ns: u64) -> usize {
    let power = 63 - ns.max(1).leading_zeros() as usize;
    let quarter = if power < 2 { 0 } else { (ns >> (power - 2) & 3) as usize };
    (4 * power + quarter).min(BUCKETS - 1)
}

fn percentiles(line: &mut Line, name: &str, samples: &mut [Sample], of: fn(&Sample) -> u32) {
    samples.sort_unstable_by_key(of);
    let at = |percent: usize| clock::ns(of(&samples[(samples.len() - 1) * percent / 100]) as u64);
    // Writing to a Line never fails.
    let _ = write!(
        line,
        ",\"{name}_ns\":{{\"min\":{},\"p50\":{},\"p90\":{},\"p99\":{},\"max\":{}}}",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

pub fn block(job: &GuestJob, cpu: u32, round: u64, out: &Outcome) {
    let line = &mut Line::new();
    let _ = write!(
        line,
        "{{\"probe\":1,\"event\":\"block\",\"round\":{round},\"cpu\":{cpu},\"dev\":{},\"queue\":{},\"op\":{},\
         \"wait\":{},\"depth\":{},\"size\":{},\"requests\":{},\"status\":{},\"detail\":{}",
        job.device,
        job.queue,
        job.op,
        job.wait,
        job.depth,
        job.size,
        out.completed,
        out.status,
        out.detail
    );
    let _ = write!(
        line,
        ",\"kicks\":{},\"kicks_suppressed\":{},\"interrupts\":{},\"spurious\":{},\"data_errors\":{},\
         \"io_errors\":{},\"duplicates\":{},\"unknown\":{},\"reordered\":{},\"halts\":{},\"masks\":{},\
         \"routes\":{},\"batches\":{}",
        out.kicks,
        out.kicks_suppressed,
        out.interrupts,
        out.spurious,
        out.data_errors,
        out.io_errors,
        out.duplicates,
        out.unknown,
        out.reordered,
        out.halts,
        out.masks,
        out.routes,
        out.batches
    );
    let time = clock::ns(out.tsc_end.saturating_sub(out.tsc_begin));
    let iops = out.completed as u64 * 1_000_000_000 / time.max(1);
    let _ = write!(line, ",\"time_ns\":{time},\"iops\":{iops},\"tsc_khz\":{}", clock::khz());
    let samples = Samples::of(cpu as usize, out.samples);
    if !samples.is_empty() {
        percentiles(line, "kick", samples, |s| s.kicked);
        percentiles(line, "done", samples, |s| s.done);
        percentiles(line, "seen", samples, |s| s.seen);
        histogram(line, samples);
    }
    let _ = writeln!(line, "}}");
}

/// Prints the histogram of `seen`: [lowest ns of the bucket, count], without empty buckets.
fn histogram(line: &mut Line, samples: &[Sample]) {
    let mut counts = [0u32; BUCKETS];
    for sample in samples {
        counts[bucket_of(clock::ns(sample.seen as u64))] += 1;
    }
    let _ = write!(line, ",\"hist\":[");
    let mut first = true;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let comma = if first { "" } else { "," };
        let _ = write!(line, "{comma}[{},{count}]", bucket_floor(bucket));
        first = false;
    }
    let _ = write!(line, "]");
}
