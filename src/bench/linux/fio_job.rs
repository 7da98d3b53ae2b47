//! fio jobs and their names.

use std::fmt;
use std::str::FromStr;

/// One fio job: which requests, and how many at a time. The name is complete: `rand-read-32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FioJob {
    order: &'static str,
    direction: &'static str,
    depth: u32,
}

/// Most requests in flight: a queue's largest size.
const MAX_DEPTH: u32 = 1024;

impl FioJob {
    /// Requests in flight.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        self.direction == "read"
    }

    /// fio's job file for a guest. The disk comes from the environment (`DISK`).
    pub fn file(&self, block_size: u64, runtime_s: f64) -> String {
        self.text(block_size, runtime_s, true)
    }

    /// fio's job file; `direct`: whether with O_DIRECT, which files in memory do not know before Linux 6.6.
    pub fn text(&self, block_size: u64, runtime_s: f64, direct: bool) -> String {
        let random = if self.order == "rand" { "rand" } else { "" };
        let FioJob { direction, depth, .. } = self;
        // Milliseconds: fio takes whole numbers only. Submission to completion is what a user waits for: lat, not clat.
        format!(
            "[global]\nfilename=${{DISK}}\nioengine=libaio\ndirect={}\nthread=1\ntime_based=1\nruntime={:.0}ms\n\
             norandommap=1\ngroup_reporting=1\ndisk_util=0\nclat_percentiles=0\nlat_percentiles=1\n\n\
             [{self}]\nrw={random}{direction}\nbs={block_size}\niodepth={depth}\n",
            u8::from(direct),
            runtime_s * 1000.0
        )
    }
}

impl fmt::Display for FioJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.order, self.direction, self.depth)
    }
}

impl FromStr for FioJob {
    type Err = String;

    fn from_str(text: &str) -> Result<FioJob, String> {
        let error = || {
            format!(
                "a job is rand or seq, read or write or rw, and a depth from 1 to {MAX_DEPTH}, as in rand-read-32"
            )
        };
        let [order, direction, depth] = text.split('-').collect::<Vec<_>>()[..] else { return Err(error()) };
        let known = |all: &[&'static str], name| all.iter().find(|known| **known == name).copied();
        Ok(FioJob {
            order: known(&["rand", "seq"], order).ok_or_else(error)?,
            direction: known(&["read", "write", "rw"], direction).ok_or_else(error)?,
            depth: depth.parse().ok().filter(|depth| (1..=MAX_DEPTH).contains(depth)).ok_or_else(error)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_it_all() {
        for name in ["rand-read-1", "seq-write-32", "rand-rw-1024"] {
            let job: FioJob = name.parse().unwrap();
            assert_eq!(job.to_string(), name);
        }
        for wrong in
            ["", "rand-read", "rand-read-0", "rand-read-1025", "read-rand-1", "rand-trim-1", "rand-read-1-1"]
        {
            assert!(wrong.parse::<FioJob>().unwrap_err().contains("rand-read-32"), "{wrong}");
        }
    }

    #[test]
    fn fio_gets_what_the_name_says() {
        let file = "seq-rw-8".parse::<FioJob>().unwrap().file(8192, 2.5);
        for line in ["rw=rw", "bs=8192", "iodepth=8", "runtime=2500ms", "filename=${DISK}"] {
            assert!(file.lines().any(|l| l == line), "{line}\n{file}");
        }
        let job = "rand-read-1".parse::<FioJob>().unwrap();
        assert!(
            job.file(4096, 1.0).contains("\nrw=randread\n") && job.file(4096, 1.0).contains("\ndirect=1\n")
        );
        assert!(job.text(4096, 1.0, false).contains("\ndirect=0\n"));
    }
}
