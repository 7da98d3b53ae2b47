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

/// Flags of the Linux guest only. clap reads none of them from the environment, because one that is given without
/// `--guest linux` is an error.
#[derive(Debug, Parser)]
#[command(next_help_heading = "The Linux guest (--guest linux)")]
pub(super) struct LinuxArgs {
    /// Guest kernel (bzImage or vmlinux), instead of the one in the guest directory
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Guest's initial ramdisk, made by guest-images/linux/build, instead of the one in the guest directory
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Directory of vmlinux and initrd [default: $DOORBELL_GUEST, or target/guest]
    #[arg(long, value_name = "DIR")]
    guest_dir: Option<PathBuf>,
    /// A shorter run: jobs rand-read-1 and rand-read-32, 8 rounds of 1 s
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement, 0.1 to 3600 [default: 2.5]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    runtime: Option<f64>,
    /// Jobs for fio, separated by commas: rand or seq, read or write or rw, depth
    /// [default: rand-read-1,rand-read-32,rand-write-1,rand-write-32]
    #[arg(long, value_name = "JOB,...", value_delimiter = ',')]
    jobs: Vec<FioJob>,
    /// Paths to compare, separated by commas: NOTIFY+COMPLETE, or one of them; +moderated holds interrupts back where
    /// that pays. Each has its own disk; ratios are to the first
    #[arg(long, value_name = "PATH,...", value_delimiter = ',', default_value = PATHS)]
    paths: Vec<PathPairName>,
    /// A disk controller of the host, passed through as with `doorbell run`, as one more row; may be given several times
    #[arg(long, value_name = "BDF[,irq=kernel|user]")]
    vfio: Vec<VfioSpec>,
    /// Let jobs write to the --vfio disks, which destroys their data. Without it they are only read
    #[arg(long, requires = "vfio")]
    overwrite: bool,
    /// Notify path of those --paths that name none: fast-mmio, mmio, pio, exit
    #[arg(long, value_name = "NOTIFY", default_value = "fast-mmio", value_parser = |v: &str| named(v, &NotifyPath::NAMES))]
    notify: NotifyPath,
    /// Backend of the disks: io_uring, sync, null, mem
    #[arg(long, value_name = "KIND", default_value = "io_uring", value_parser = |v: &str| named(v, &BackendKind::NAMES))]
    backend: BackendKind,
    /// Directory for the disks' files; they have no names (O_TMPFILE), so none is left behind [default: in memory]
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
    /// The configuration of the run, or the error for flags that contradict each other.
    pub(super) fn bench(self, common: &Common) -> Result<LinuxBench, Failure> {
        let (rounds, runtime_s) = if self.quick { QUICK } else { FULL };
        let paths = self.paths.iter().map(|name| {
            let path = bench::PathPair {
                notify: name.notify.unwrap_or(self.notify),
                complete: name.complete.unwrap_or(CompletePath::Irqfd),
            };
            // Without moderation, every completion interrupts: the bench compares the cost of one interrupt.
            Variant::Disk(path, if name.moderated { Moderation::Auto } else { Moderation::Off })
        });
        let only_read = !self.vfio.is_empty() && !self.overwrite;
        if let (true, Some(job)) = (only_read, self.jobs.iter().find(|job| !job.reads())) {
            return Err(Failure::usage(format!(
                "{job} would destroy the data on {}: leave that job out, or add --overwrite",
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
                "--paths and --vfio name more than {MAX_PATHS} disks; use fewer"
            )));
        }
        if let Some(twice) = twice(&self.vfio.iter().map(|spec| spec.bdf).collect::<Vec<_>>()) {
            return Err(Failure::usage(format!("--vfio names {twice} twice; leave one out")));
        }
        if self.block_size == 0 || !self.block_size.is_multiple_of(512) || self.block_size > self.size {
            return Err(Failure::usage("--block-size must be a multiple of 512 and fit into --size"));
        }
        if self.size == 0 || !self.size.is_multiple_of(4096) {
            return Err(Failure::usage("--size must be a multiple of 4096"));
        }
        if !(RAM_MIN..=RAM_MAX).contains(&self.memory) {
            return Err(Failure::usage("--memory must be 128M to 8G"));
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
            progress: common.progress,
        })
    }
}

/// A step's number has 16 bits, and the last value is reserved.
const MAX_STEPS: usize = 60_000;
/// Each path needs a disk and an I/O thread.
const MAX_PATHS: usize = 16;

fn jobs(names: &str) -> Vec<FioJob> {
    // Cannot fail: these are our names, and a test parses them.
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
        "no guest: {} does not exist; make it with guest-images/linux/build, or name one with {flag}",
        path.display()
    );
    Err(Failure { code: 4, message })
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "use a number of bytes, or one with K, M or G: 4k, 128M".into())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = f64::from_str(text).ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "use seconds, 0.1 to 3600".into())
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
