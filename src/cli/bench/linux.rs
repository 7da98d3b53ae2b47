//! `doorbell bench --guest linux`: its flags.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Parser;

use super::super::Failure;
use super::super::disk_arg::parse_size;
use super::{Common, named};
use crate::backend::BackendKind;
use crate::bench::linux::{BenchError, FioJob, LinuxBench, Variant};
use crate::bench::{self, PathPairName, Schedule};
use crate::dataplane::{CompletePath, Moderation};
use crate::machine::layout::{RAM_MAX, RAM_MIN, VCPUS_MAX};
use crate::vfio::VfioSpec;
use crate::virtio::{MAX_QUEUES, NotifyPath};

const JOBS: &str = "rand-read-1,rand-read-32,rand-write-1,rand-write-32";
const QUICK_JOBS: &str = "rand-read-1,rand-read-32";
const PATHS: &str = "irqfd,signal-msi,irqfd+moderated";
/// Rounds and seconds of each step. Even, and enough for the verdicts on these jobs and paths.
const FULL: (usize, f64) = (10, 2.5);
const QUICK: (usize, f64) = (8, 1.0);

/// Those of the Linux guest only. None of them is read from the environment by clap: whether any is given decides whether
/// the command line is wrong.
#[derive(Debug, Parser)]
#[command(next_help_heading = "The Linux guest (--guest linux)")]
pub(super) struct LinuxArgs {
    /// Guest kernel (bzImage or vmlinux), in place of the one in the guest directory
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Guest's initial ramdisk, made by guest-images/linux/build, in place of the one in the guest directory
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Where vmlinux and initrd are [default: $DOORBELL_GUEST, or target/guest]
    #[arg(long, value_name = "DIR")]
    guest_dir: Option<PathBuf>,
    /// Fewer jobs, shorter: rand-read-1 and rand-read-32, 8 rounds of 1 s
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement, 0.1 to 3600 [default: 2.5]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    runtime: Option<f64>,
    /// Jobs for fio, separated by commas: rand or seq, read or write or rw, depth
    /// [default: rand-read-1,rand-read-32,rand-write-1,rand-write-32]
    #[arg(long, value_name = "JOB,...", value_delimiter = ',')]
    jobs: Vec<FioJob>,
    /// What is compared, separated by commas: NOTIFY+COMPLETE, or one of them; +moderated holds interrupts where that
    /// pays. A disk each; the first is what the others' ratios are to
    #[arg(long, value_name = "PATH,...", value_delimiter = ',', default_value = PATHS)]
    paths: Vec<PathPairName>,
    /// A device of the host with a disk behind it, for a row beside the others; as with `doorbell run`, and may be given
    /// several times
    #[arg(long, value_name = "BDF[,irq=kernel|user]")]
    vfio: Vec<VfioSpec>,
    /// Let jobs write to the disks behind --vfio: what is on them is lost. Without it they are only read
    #[arg(long, requires = "vfio")]
    overwrite: bool,
    /// Notify path of --paths that name none: fast-mmio, mmio, pio, exit
    #[arg(long, value_name = "NOTIFY", default_value = "fast-mmio", value_parser = |v: &str| named(v, &NotifyPath::NAMES))]
    notify: NotifyPath,
    /// Backend of the disks: io_uring, sync, null, mem
    #[arg(long, value_name = "KIND", default_value = "io_uring", value_parser = |v: &str| named(v, &BackendKind::NAMES))]
    backend: BackendKind,
    /// Directory for the disks' files, which have no names and leave nothing behind [default: in memory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Open the files with O_DIRECT; needs --dir
    #[arg(long, requires = "dir")]
    direct: bool,
    /// Size of each disk
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_bytes)]
    size: u64,
    /// Bytes of each request
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = parse_bytes)]
    block_size: u64,
    /// Request queues of each disk, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUES)))]
    queues: u16,
    /// vCPUs of the guest, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(VCPUS_MAX)))]
    cpus: u8,
    /// Guest RAM, 128M to 8G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_bytes)]
    memory: u64,
}

impl LinuxArgs {
    /// What to run; says what does not fit together.
    pub(super) fn bench(self, common: &Common) -> Result<LinuxBench, Failure> {
        let (rounds, runtime_s) = if self.quick { QUICK } else { FULL };
        let paths = self.paths.iter().map(|name| {
            let path = bench::PathPair {
                notify: name.notify.unwrap_or(self.notify),
                complete: name.complete.unwrap_or(CompletePath::Irqfd),
            };
            // The paths are compared with every completion interrupting: what is compared is the cost of one.
            Variant::Disk(path, if name.moderated { Moderation::Auto } else { Moderation::Off })
        });
        let only_read = !self.vfio.is_empty() && !self.overwrite;
        if let (true, Some(job)) = (only_read, self.jobs.iter().find(|job| !job.reads())) {
            return Err(Failure::usage(format!(
                "{job} would overwrite what is on {}: leave that job out, or add --overwrite",
                self.vfio[0].bdf
            )));
        }
        let schedule = Schedule {
            jobs: if self.jobs.is_empty() {
                let mut jobs = jobs(if self.quick { QUICK_JOBS } else { JOBS });
                jobs.retain(|job| job.reads() || !only_read);
                jobs
            } else {
                self.jobs
            },
            paths: paths.chain(self.vfio.iter().copied().map(Variant::Passed)).collect(),
            rounds: common.rounds.map_or(rounds, usize::from),
        };
        if let Some(twice) = twice(&schedule.jobs) {
            return Err(Failure::usage(format!("--jobs names {twice} twice; leave one out")));
        }
        if schedule.jobs.len() * schedule.paths.len() * schedule.rounds > MAX_STEPS {
            return Err(Failure::usage(format!(
                "jobs x paths x rounds is more than {MAX_STEPS}; use fewer rounds"
            )));
        }
        if schedule.paths.len() > MAX_PATHS {
            return Err(Failure::usage(format!(
                "--paths and --vfio name more than {MAX_PATHS}, a disk each; use fewer"
            )));
        }
        if let Some(twice) = twice(&self.vfio.iter().map(|spec| spec.bdf).collect::<Vec<_>>()) {
            return Err(Failure::usage(format!("--vfio names {twice} twice; leave one out")));
        }
        if self.block_size == 0 || !self.block_size.is_multiple_of(512) || self.block_size > self.size {
            return Err(Failure::usage("--block-size takes a multiple of 512 that fits into --size"));
        }
        if self.size == 0 || !self.size.is_multiple_of(4096) {
            return Err(Failure::usage("--size takes a multiple of 4096"));
        }
        if !(RAM_MIN..=RAM_MAX).contains(&self.memory) {
            return Err(Failure::usage("--memory takes 128M to 8G"));
        }
        let guest_dir = self.guest_dir.or_else(|| std::env::var_os("DOORBELL_GUEST").map(PathBuf::from));
        let guest_dir = guest_dir.unwrap_or_else(|| "target/guest".into());
        let kernel = given(self.kernel, &guest_dir, "vmlinux", "--kernel")?;
        let initrd = given(self.initrd, &guest_dir, "initrd", "--initrd")?;
        Ok(LinuxBench {
            schedule,
            runtime_s: self.runtime.unwrap_or(runtime_s),
            block_size: self.block_size,
            kernel,
            initrd,
            cpus: self.cpus,
            memory: self.memory,
            backend: self.backend,
            directory: self.dir,
            direct: self.direct,
            disk_size: self.size,
            queues: self.queues,
            poll_us: common.poll_us.unwrap_or(0).into(),
            sandbox: common.sandbox,
            progress: common.progress,
        })
    }
}

/// A step's number has two bytes, the last of which is taken.
const MAX_STEPS: usize = 60_000;
/// A disk and an I/O thread each.
const MAX_PATHS: usize = 16;

fn jobs(names: &str) -> Vec<FioJob> {
    // The names are ours and a test reads them.
    names.split(',').filter_map(|name| name.parse().ok()).collect()
}

fn twice<T: PartialEq>(all: &[T]) -> Option<&T> {
    all.iter().enumerate().find(|(n, one)| all[..*n].contains(one)).map(|(_, one)| one)
}

fn given(path: Option<PathBuf>, dir: &Path, name: &str, flag: &str) -> Result<PathBuf, Failure> {
    let path = path.unwrap_or_else(|| dir.join(name));
    if path.is_file() {
        return Ok(path);
    }
    let message = format!(
        "no guest: {} is not there; make it with guest-images/linux/build, or name one with {flag}",
        path.display()
    );
    Err(Failure { code: 4, message })
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "it takes a number of bytes, or with K, M or G: 4k, 128M".into())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = f64::from_str(text).ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "it takes seconds, 0.1 to 3600".into())
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        match error {
            BenchError::Vm(error) => error.into(),
            BenchError::Machine(error) => error.into(),
            BenchError::File { .. } => Failure { code: 4, message: error.to_string() },
            BenchError::Guest(message) => Failure { code: 1, message },
        }
    }
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;
