//! fio on the host, on a file like the disks': what the file itself can do, without a VM.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::linux::fio;
use crate::bench::linux::fio_job::{FioJob, UNTIMED_S};
use crate::bench::linux::sample::Sample;
use crate::bench::memfile::MemFile;
use crate::bench::peer_process::PeerProcess;

/// How long it may take beyond a step's own time.
const LIMIT: Duration = Duration::from_secs(60);
/// How often its process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// fio, and the file that it uses.
pub struct HostFio {
    /// fio.
    pub program: PathBuf,
    /// The file.
    pub disk: MemFile,
    /// Bytes of a request.
    pub block_size: u64,
    /// Whether it opens the file with O_DIRECT, as the disks' files are.
    pub direct: bool,
}

impl HostFio {
    /// Runs one job.
    ///
    /// # Errors
    /// The step is lost; a clause says why.
    pub fn step(&self, job: &FioJob, runtime_s: f64) -> Result<Sample, String> {
        let host = |error: std::io::Error| format!("no file for it: {error}");
        let text = job.text(self.block_size, runtime_s, self.direct);
        let (seconds, reads_back) = (job.seconds(runtime_s).unwrap_or(UNTIMED_S), job.reads_back());
        let job = MemFile::of(text.as_bytes()).map_err(host)?;
        let output = MemFile::of(&[]).map_err(host)?;
        let mut command = Command::new(&self.program);
        command.args(["--eta=never", "--output-format=json+"]);
        command.arg(format!("--output={}", output.path_for_child().display()));
        command.arg(job.path_for_child()).env("DISK", self.disk.path_for_child());
        command.env("RUNTIME", format!("{:.0}", runtime_s.ceil()));
        let mut process = PeerProcess::start(command)?;
        let begun = Instant::now();
        let why = loop {
            if let Some(why) = process.ended() {
                break why;
            }
            if begun.elapsed() > LIMIT + Duration::from_secs_f64(seconds) {
                return Err("it does not end".into());
            }
            std::thread::sleep(LOOK);
        };
        let output = output.read().map_err(host)?;
        let fio =
            fio::parse(&output, reads_back).map_err(|error| format!("{why}, and its output: {error}"))?;
        Ok(Sample::of_fio(fio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fio(program: &str) -> HostFio {
        let disk = MemFile::full(None, 1 << 20).unwrap();
        HostFio { program: program.into(), disk, block_size: 4096, direct: false }
    }

    #[test]
    fn the_jobs_are_those_of_the_guest() {
        let found = crate::bench::peer_process::version("fio".as_ref());
        if let Err(why) = found {
            return eprintln!("skipped: {why}");
        }
        let sample = fio("fio").step(&"rand-read-4".parse().unwrap(), 0.1).unwrap();
        assert!(sample.fio.requests > 0 && sample.guest_interrupts.is_none());
    }

    #[test]
    fn another_program_loses_the_step_in_a_clause() {
        let error = fio("/bin/true").step(&"rand-read-4".parse().unwrap(), 0.1).unwrap_err();
        assert!(error.contains("no JSON"), "{error}");
        assert!(fio("/no/such").step(&"rand-read-4".parse().unwrap(), 0.1).is_err());
    }
}
