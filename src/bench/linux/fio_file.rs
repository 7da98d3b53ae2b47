//! A user's job file for fio: each of its sections is a job of the bench, which runs alone.
//!
//! The file is fio's; doorbell replaces `filename`, and reads the few options that say what a section does and how long.

use std::collections::BTreeMap;

/// Options that come first. The file's own options come later, and the last value of an option counts.
///
/// Latencies are from submission to completion, as the bench's own jobs measure them.
const HEAD: &str = "[global]\nfilename=${DISK}\nlat_percentiles=1\nclat_percentiles=0\n";
/// Engines that keep `iodepth` requests in flight; the others have one per job.
const ASYNCHRONOUS: [&str; 4] = ["libaio", "io_uring", "io_uring_cmd", "posixaio"];
/// With these, the number of requests in flight is not constant.
const UNSTEADY: [&str; 12] = [
    "thinktime",
    "rate",
    "rate_iops",
    "rate_min",
    "verify",
    "iodepth_batch",
    "iodepth_batch_submit",
    "iodepth_batch_complete",
    "iodepth_batch_complete_min",
    "iodepth_low",
    "latency_target",
    "flow",
];

/// One section with the global options before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    name: String,
    lines: Vec<String>,
    /// The last value of each option; empty for one that has none.
    options: BTreeMap<String, String>,
}

/// Why a file is not a list of jobs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FioFileError {
    /// No section but `[global]`.
    #[error("it has no section but [global]; fio runs a job for each other section")]
    Empty,
    /// An option before the first section.
    #[error("line {0} stands before the first section")]
    Stray(usize),
    /// Two sections of one name.
    #[error("it has two sections called [{0}]; the results need two names")]
    Twice(String),
    /// An option that needs the host's files.
    #[error("line {line}: {option} cannot be used: {why}")]
    Option {
        /// Line, from 1.
        line: usize,
        /// The option.
        option: String,
        /// Why.
        why: &'static str,
    },
}

/// The sections of a job file.
///
/// # Errors
/// See [`FioFileError`].
pub fn sections(text: &str) -> Result<Vec<Section>, FioFileError> {
    let empty = |name: &str, global: &Section| Section { name: name.into(), ..global.clone() };
    let mut global =
        Section { name: String::new(), lines: vec!["[global]".into()], options: BTreeMap::new() };
    let mut sections: Vec<Section> = Vec::new();
    let mut in_section = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            in_section = Some(name != "global");
            if name != "global" {
                if sections.iter().any(|section| section.name == name) {
                    return Err(FioFileError::Twice(name.into()));
                }
                let mut section = empty(name, &global);
                section.lines.push(format!("[{name}]"));
                sections.push(section);
            }
            continue;
        }
        let section = match (in_section, sections.last_mut()) {
            (Some(true), Some(section)) => section,
            (Some(_), _) => &mut global,
            (None, _) => return Err(FioFileError::Stray(number + 1)),
        };
        section.add(line, number + 1)?;
    }
    if sections.is_empty() { Err(FioFileError::Empty) } else { Ok(sections) }
}

impl Section {
    fn add(&mut self, line: &str, number: usize) -> Result<(), FioFileError> {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        let why = match key.split_whitespace().next().unwrap_or_default() {
            "directory" => Some("the disk under test is not a directory"),
            "include" => Some("put the other file's lines here"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(FioFileError::Option { line: number, option: key.into(), why });
        }
        // HEAD names the disk.
        if key != "filename" {
            self.lines.push(line.into());
            let key = if key == "readwrite" { "rw" } else { key };
            self.options.insert(key.into(), value.into());
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A job file with this section alone.
    pub fn file(&self) -> String {
        format!("{HEAD}{}\n", self.lines.join("\n"))
    }

    fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    fn direction(&self) -> &str {
        self.option("rw").unwrap_or("read").split(':').next().unwrap_or_default()
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        matches!(self.direction(), "read" | "randread")
    }

    /// Whether it writes, and reads all of it back afterwards to verify it.
    pub fn reads_back(&self) -> bool {
        let verifies = self.option("verify").is_some_and(|how| how != "0" && how != "null");
        verifies && matches!(self.direction(), "write" | "randwrite") && self.option("do_verify") != Some("0")
    }

    /// Requests in flight, if they are a number that stays the same.
    pub fn in_flight(&self) -> Option<u32> {
        if UNSTEADY.iter().any(|key| self.options.contains_key(*key)) {
            return None;
        }
        let number = |key| self.option(key).map_or(Some(1), |text| text.parse::<u32>().ok());
        let asynchronous = self.option("ioengine").is_some_and(|engine| ASYNCHRONOUS.contains(&engine));
        number("numjobs")?.checked_mul(if asynchronous { number("iodepth")? } else { 1 })
    }

    /// Seconds of a run, warm-up included; `None`: its size ends it. `runtime_s` is what the environment's RUNTIME says.
    pub fn seconds(&self, runtime_s: f64) -> Option<f64> {
        let time = |key| match self.option(key)? {
            "${RUNTIME}" => Some(runtime_s),
            text => seconds(text),
        };
        Some(time("runtime")? + time("ramp_time").unwrap_or(0.0))
    }
}

/// A time as fio reads it: seconds, or with a unit.
fn seconds(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
#[path = "fio_file_tests.rs"]
mod tests;
