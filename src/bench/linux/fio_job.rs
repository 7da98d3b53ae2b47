//! fio jobs: by name, with fio's own words, or a section of a job file.

use std::fmt;
use std::str::FromStr;

use super::fio_file::Section;

/// One fio job. Its name is complete (`rand-read-32`, `randwrite:8:bs=64k`), or that of a section of a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FioJob {
    name: String,
    /// What fio runs, all but the options that every made job has.
    text: Text,
    /// Requests in flight, if it is a number that stays the same.
    depth: Option<u32>,
    /// Whether it only reads.
    reads: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    /// Options of the job's section, one per line.
    Made(String),
    /// A whole file.
    Given(Section),
}

/// Longest time of a job that ends after so many bytes, in seconds.
pub const UNTIMED_S: f64 = 3600.0;

/// Most requests in flight: a queue's largest size.
const MAX_DEPTH: u32 = 1024;
/// fio's names, with ours.
const DIRECTIONS: [(&str, &str); 8] = [
    ("read", "seq-read"),
    ("write", "seq-write"),
    ("rw", "seq-rw"),
    ("readwrite", "seq-rw"),
    ("randread", "rand-read"),
    ("randwrite", "rand-write"),
    ("randrw", "rand-rw"),
    ("randreadwrite", "rand-rw"),
];
/// Options that the bench sets itself.
const TAKEN: [&str; 6] = ["filename", "directory", "rw", "readwrite", "iodepth", "name"];

impl FioJob {
    /// The section of a job file.
    pub fn given(section: Section) -> FioJob {
        let (name, depth, reads) = (section.name().to_string(), section.in_flight(), section.reads());
        FioJob { name, text: Text::Given(section), depth, reads }
    }

    /// The job that `name` names without a depth, at this depth.
    ///
    /// # Errors
    /// `name` has a depth, or names no job: one sentence.
    pub fn at_depth(name: &str, depth: u32) -> Result<FioJob, String> {
        let (first, rest) = name.split_once(':').map_or((name, String::new()), |(a, b)| (a, format!(":{b}")));
        let ours = DIRECTIONS.iter().any(|(_, ours)| *ours == first);
        let full = if ours { format!("{first}-{depth}{rest}") } else { format!("{first}:{depth}{rest}") };
        full.parse().map_err(|why| format!("{name} at depth {depth}: {why}"))
    }

    /// Requests in flight; `None`: they are not a number that stays the same.
    pub fn depth(&self) -> Option<u32> {
        self.depth
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        self.reads
    }

    /// Whether it writes, and reads all of it back afterwards.
    pub fn reads_back(&self) -> bool {
        matches!(&self.text, Text::Given(section) if section.reads_back())
    }

    /// Seconds of a run, if time ends it; `runtime_s`: those of a job that has none of its own.
    pub fn seconds(&self, runtime_s: f64) -> Option<f64> {
        match &self.text {
            Text::Made(_) => Some(runtime_s),
            Text::Given(section) => section.seconds(runtime_s),
        }
    }

    /// fio's job file for a guest. The disk comes from the environment (`DISK`).
    pub fn file(&self, block_size: u64, runtime_s: f64) -> String {
        self.text(block_size, runtime_s, true)
    }

    /// fio's job file; `direct`: whether with O_DIRECT, which files in memory do not know before Linux 6.6.
    pub fn text(&self, block_size: u64, runtime_s: f64, direct: bool) -> String {
        match &self.text {
            // Milliseconds, because fio accepts only whole numbers. lat, not clat: a user waits from submission to completion.
            Text::Made(options) => format!(
                "[global]\nfilename=${{DISK}}\nioengine=libaio\ndirect={}\nthread=1\ntime_based=1\nruntime={:.0}ms\n\
                 norandommap=1\ngroup_reporting=1\ndisk_util=0\nclat_percentiles=0\nlat_percentiles=1\n\n\
                 [job]\nbs={block_size}\n{options}",
                u8::from(direct),
                runtime_s * 1000.0
            ),
            Text::Given(section) => section.file(),
        }
    }
}

impl fmt::Display for FioJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for FioJob {
    type Err = String;

    /// `rand-read-32`, or fio's words: `randread:32`, and further options after colons, `randread:32:bs=64k:numjobs=4`.
    fn from_str(text: &str) -> Result<FioJob, String> {
        let error = || {
            format!(
                "a job is rand or seq, read or write or rw, and a depth from 1 to {MAX_DEPTH}, as in rand-read-32; or in \
                 fio's words randread:32, with further options after colons: randread:32:bs=64k:numjobs=4"
            )
        };
        let mut words = text.split(':').peekable();
        let first = words.next().unwrap_or_default();
        let (direction, depth) = match DIRECTIONS.iter().find(|(fio, _)| *fio == first) {
            // As with fio, the depth is 1 if none is given.
            Some((fio, _)) => (*fio, words.next_if(|word| word.parse::<u32>().is_ok()).unwrap_or("1")),
            None => {
                let (name, depth) = first.rsplit_once('-').ok_or_else(error)?;
                let named = DIRECTIONS.iter().find(|(_, ours)| *ours == name).ok_or_else(error)?;
                (named.0, depth)
            }
        };
        let depth = depth.parse().ok().filter(|depth| (1..=MAX_DEPTH).contains(depth)).ok_or_else(error)?;
        let mut options = format!("rw={direction}\niodepth={depth}\n");
        let mut numjobs = 1;
        for option in words {
            let (key, value) = option.split_once('=').ok_or_else(error)?;
            let plain = |text: &str, more: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            };
            if !plain(key, "_") || !plain(value, "_.%/-") {
                return Err(error());
            }
            if TAKEN.contains(&key) {
                return Err(format!("{key} of {text} is set by the bench; leave it out"));
            }
            if key == "numjobs" {
                numjobs = value.parse().ok().filter(|n| (1..=64).contains(n)).ok_or("use numjobs=1 to 64")?;
            }
            options += &format!("{option}\n");
        }
        let reads = direction.ends_with("read");
        Ok(FioJob { name: text.into(), text: Text::Made(options), depth: Some(depth * numjobs), reads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_it_all() {
        for (name, depth, reads) in [
            ("rand-read-1", 1, true),
            ("seq-write-32", 32, false),
            ("rand-rw-1024", 1024, false),
            ("randread", 1, true),
            ("randread:32", 32, true),
            ("randrw:16:bs=64k:rwmixread=70", 16, false),
            ("read:4:numjobs=2", 8, true),
        ] {
            let job: FioJob = name.parse().unwrap();
            assert_eq!(
                (job.to_string().as_str(), job.depth(), job.reads()),
                (name, Some(depth), reads),
                "{name}"
            );
        }
        for wrong in [
            "",
            "rand-read",
            "rand-read-0",
            "rand-read-1025",
            "read-rand-1",
            "rand-trim-1",
            "rand-read-1-1",
            "randread:0",
            "randread:1:bs",
            "randread:1:bs=4k\nexec_prerun=x",
        ] {
            assert!(wrong.parse::<FioJob>().unwrap_err().contains("rand-read-32"), "{wrong}");
        }
        assert!("randread:1:filename=/dev/sda".parse::<FioJob>().unwrap_err().contains("leave it out"));
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
        // In a job file, the last value of an option counts.
        let file = "randread:2:bs=64k:numjobs=4".parse::<FioJob>().unwrap().file(4096, 1.0);
        assert!(file.ends_with("bs=4096\nrw=randread\niodepth=2\nbs=64k\nnumjobs=4\n"), "{file}");
    }

    #[test]
    fn a_depth_is_added_to_either_kind_of_name() {
        let job = |name| FioJob::at_depth(name, 8).map(|job| job.to_string());
        assert_eq!(job("rand-read").as_deref(), Ok("rand-read-8"));
        assert_eq!(job("randread:bs=64k").as_deref(), Ok("randread:8:bs=64k"));
        assert!(job("randread:4").is_err() && job("rand-read-4").is_err());
    }
}
