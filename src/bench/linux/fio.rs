//! fio's output (`json+`, with the field names of fio 3.33), and histograms of latency.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bench::Buckets;

/// Latencies in nanoseconds: fio's bins, each named by a value inside it, about 1.5 % wide.
///
/// Not hdrhistogram, which everything else here uses: fio has counted already, and its bins would have to be spread over
/// other bins, so that percentiles would no longer equal fio's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    bins: BTreeMap<u64, u64>,
    /// Sum of all latencies.
    sum: f64,
    count: u64,
    min: Option<u64>,
}

impl Histogram {
    /// Adds the requests of another round.
    pub fn add(&mut self, other: &Histogram) {
        for (value, count) in &other.bins {
            *self.bins.entry(*value).or_default() += count;
        }
        self.sum += other.sum;
        self.count += other.count;
        self.min = [self.min, other.min].into_iter().flatten().min();
    }

    /// Mean, not rounded to bins.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Smallest.
    pub fn min(&self) -> Option<u64> {
        self.min
    }

    /// Median, interpolated within its bin, so that a difference smaller than a bin still changes it.
    pub fn median(&self) -> Option<f64> {
        let half = self.bins.values().sum::<u64>() as f64 / 2.0;
        let mut seen = 0.0;
        self.bins.iter().find_map(|(&value, &count)| {
            let (before, width) = (seen, width(value) as f64);
            seen += count as f64;
            // fio names a bin by its middle.
            (seen >= half && count > 0)
                .then(|| value as f64 - (width / 2.0).floor() + width * (half - before) / count as f64)
        })
    }

    /// The same in the buckets of a report; `None`: there is none.
    pub fn buckets(&self) -> Option<Vec<(u64, u64)>> {
        let mut buckets = Buckets::default();
        self.bins.iter().for_each(|(&value, &count)| buckets.add(value, count));
        Some(buckets.list()).filter(|list| !list.is_empty())
    }

    /// The latency that `percent` of the requests did not exceed, precise to one bin.
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let total: u64 = self.bins.values().sum();
        let wanted = ((percent / 100.0 * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.bins.iter().find_map(|(value, count)| {
            seen += count;
            (seen >= wanted).then_some(*value)
        })
    }
}

/// How wide fio's bin around `value` is: one up to 127, then 64 bins for each power of two.
fn width(value: u64) -> u64 {
    1 << (value | 64).ilog2().saturating_sub(6)
}

/// One run of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Requests per second.
    pub iops: f64,
    /// Requests.
    pub requests: u64,
    /// Seconds.
    pub seconds: f64,
    /// Latencies from submission to completion.
    pub latency: Histogram,
    /// "fio-3.33".
    pub version: String,
}

#[derive(Deserialize)]
struct Output {
    #[serde(rename = "fio version")]
    version: String,
    jobs: Vec<JobOutput>,
}

#[derive(Deserialize)]
struct JobOutput {
    error: i64,
    read: Direction,
    write: Direction,
    #[serde(default)]
    trim: Direction,
}

#[derive(Default, Deserialize)]
struct Direction {
    total_ios: u64,
    /// Milliseconds.
    runtime: u64,
    /// From submission to completion.
    lat_ns: Latency,
    /// From the end of the submission to completion. A job file may ask for bins of these instead.
    #[serde(default)]
    clat_ns: Latency,
}

impl Direction {
    fn histogram(&self) -> Result<Histogram, String> {
        let whole = self.lat_ns.histogram()?;
        Ok(if whole.bins.is_empty() {
            Histogram { bins: self.clat_ns.histogram()?.bins, ..whole }
        } else {
            whole
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Latency {
    min: u64,
    mean: f64,
    #[serde(rename = "N")]
    count: u64,
    #[serde(default)]
    bins: BTreeMap<String, u64>,
}

impl Latency {
    fn histogram(&self) -> Result<Histogram, String> {
        let bin = |(value, count): (&String, &u64)| {
            Ok((value.parse().map_err(|_| format!("the name of a bin is not a number: {value:?}"))?, *count))
        };
        Ok(Histogram {
            bins: self.bins.iter().map(bin).collect::<Result<_, String>>()?,
            sum: self.mean * self.count as f64,
            count: self.count,
            min: (self.count > 0).then_some(self.min),
        })
    }
}

/// Reads fio's output. `reads_back`: the job writes first and then reads, not both at the same time.
///
/// # Errors
/// It is not fio's JSON, fio failed, or fio did nothing; a clause says which.
pub fn parse(bytes: &[u8], reads_back: bool) -> Result<Measured, String> {
    // fio prints its warnings before the JSON.
    let start = bytes.iter().position(|&b| b == b'{').ok_or("no JSON in it")?;
    let output: Output = serde_json::from_slice(&bytes[start..]).map_err(|e| e.to_string())?;
    let mut latency = Histogram::default();
    let (mut requests, mut seconds) = (0, 0.0f64);
    // One, or numjobs of them, which run at the same time.
    for job in &output.jobs {
        if job.error != 0 {
            return Err(format!("fio failed: {}", std::io::Error::from_raw_os_error(job.error as i32)));
        }
        let directions = [&job.read, &job.write, &job.trim];
        let times = directions.map(|direction| direction.runtime);
        let time = if reads_back { times.iter().sum() } else { times.into_iter().max().unwrap_or(0) };
        seconds = seconds.max(time as f64 / 1000.0);
        requests += directions.map(|direction| direction.total_ios).iter().sum::<u64>();
        for direction in directions {
            latency.add(&direction.histogram()?);
        }
    }
    if requests == 0 || seconds == 0.0 {
        return Err("fio completed no request".into());
    }
    Ok(Measured { iops: requests as f64 / seconds, requests, seconds, latency, version: output.version })
}

#[cfg(test)]
#[path = "fio_tests.rs"]
mod tests;
