//! `doorbell bench --guest linux`: its flags.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use super::super::Failure;
use super::super::disk_arg::parse_size;
use super::super::fio_arg::read_fio;
use super::super::guest_files::{guest_dir, guest_file};
use super::super::sandbox_mode;
use super::{Common, named};
use crate::backend::BackendKind;
use crate::bench::linux::{BenchError, FioJob, LinuxBench, Peer, Variant};
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
    /// Jobs for fio, separated by commas: (rand|seq)-(read|write|rw)-DEPTH, or in fio's words, with further options after
    /// colons: randread:32, randrw:8:bs=64k:numjobs=4:rwmixread=70
    /// [default: rand-read-1,rand-read-32,rand-write-1,rand-write-32]
    #[arg(long, value_name = "JOB,...", value_delimiter = ',')]
    jobs: Vec<String>,
    /// Every job of --jobs, named without a depth, at each of these depths: 1,4,32 or 1,2,...,128
    /// [default jobs with it: randread,randwrite]
    #[arg(long, value_name = "N,...", value_parser = parse_depths)]
    depths: Option<Depths>,
    /// Your own job file for fio: each section is a job. filename is replaced by the disk under test, everything else stays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jobs", "depths", "block_size"])]
    fio: Option<PathBuf>,
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
        let peers = Peer::all(&common.peer).map_err(|message| Failure { code: 4, message })?;
        if let (false, Some(peer)) = (self.backend.uses_file(), peers.first()) {
            let message = format!("--peer {} needs a file: --backend io_uring or sync", peer.name);
            return Err(Failure::usage(message));
        }
        let peers = peers.into_iter().map(Variant::Peer);
        let only_read = !self.vfio.is_empty() && !self.overwrite;
        let (fio_file, asked_for) = self.given_jobs()?;
        if let (true, Some(job)) = (only_read, asked_for.iter().find(|job| !job.reads())) {
            return Err(Failure::usage(format!(
                "{job} would destroy the data on {}: leave that job out, or add --overwrite",
                self.vfio[0].bdf
            )));
        }
        let mut paths: Vec<_> =
            paths.chain(self.vfio.iter().copied().map(Variant::Passed)).chain(peers).collect();
        if common.self_test {
            if !self.vfio.is_empty() {
                return Err(Failure::usage("--self-test measures a path of ours: leave out --vfio"));
            }
            paths.truncate(1);
            paths.extend_from_within(..);
        }
        let schedule = Schedule {
            jobs: if asked_for.is_empty() {
                let mut jobs = jobs(if self.quick { QUICK_JOBS } else { JOBS });
                jobs.retain(|job| job.reads() || !only_read);
                jobs
            } else {
                asked_for
            },
            paths,
            rounds: common.rounds(rounds),
        };
        if let Some(twice) = twice(&schedule.jobs) {
            return Err(Failure::usage(format!("--jobs names {twice} twice; leave one out")));
        }
        // With --until it is only the most there may be.
        let each = (schedule.jobs.len() * schedule.paths.len()).max(1);
        let rounds = match common.until {
            Some(_) => schedule.rounds.min((MAX_STEPS / each) & !1),
            None => schedule.rounds,
        };
        let schedule = Schedule { rounds, ..schedule };
        if rounds == 0 || each * rounds > MAX_STEPS {
            return Err(Failure::usage(format!(
                "jobs x paths x rounds is more than {MAX_STEPS}; use fewer rounds"
            )));
        }
        if schedule.paths.len() > MAX_PATHS {
            return Err(Failure::usage(format!(
                "--paths, --vfio and --peer name more than {MAX_PATHS} disks; use fewer"
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
        let pins = common.pin.clone().unwrap_or_default();
        let disks = schedule.paths.iter().filter(|path| path.disk().is_some()).count();
        pins.check(self.cpus.into(), disks)?;
        let guest_dir = guest_dir(self.guest_dir);
        let kernel = guest_file(self.kernel, &guest_dir, "vmlinux", "--kernel")?;
        let initrd = guest_file(self.initrd, &guest_dir, "initrd", "--initrd")?;
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
            vcpu_pins: pins.vcpus(self.cpus.into()),
            thread_pins: (0..disks).map(|n| pins.iothread(n)).collect(),
            self_test: common.self_test,
            sandbox: sandbox_mode(common.sandbox, (!common.peer.is_empty()).then_some("--peer")),
            fio_file,
            pace: common.pace(),
            progress: common.progress,
        })
    }

    /// The jobs that the command line asks for, if it does, and the job file that they are of.
    fn given_jobs(&self) -> Result<(Option<String>, Vec<FioJob>), Failure> {
        if let Some(path) = &self.fio {
            let (text, sections) = read_fio(path)?;
            return Ok((Some(text), sections.into_iter().map(FioJob::given).collect()));
        }
        let usage = |why: String| Failure::usage(format!("--jobs: {why}"));
        let named = |name: &String| name.parse::<FioJob>().map_err(usage);
        let Some(Depths(depths)) = &self.depths else {
            return Ok((None, self.jobs.iter().map(named).collect::<Result<_, _>>()?));
        };
        let default = ["randread".to_string(), "randwrite".to_string()];
        let default = if self.vfio.is_empty() || self.overwrite { &default[..] } else { &default[..1] };
        let names = if self.jobs.is_empty() { default } else { &self.jobs };
        let all = names.iter().flat_map(|name| depths.iter().map(|&depth| FioJob::at_depth(name, depth)));
        Ok((None, all.collect::<Result<_, _>>().map_err(usage)?))
    }
}

/// A step's number has two bytes, and its results some 20 KiB on a disk of 64 MiB.
const MAX_STEPS: usize = 2500;

/// Depths of `--depths`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Depths(Vec<u32>);

/// Numbers; `...` goes on as the two before it, by multiplying where the second is a multiple of the first.
fn parse_depths(text: &str) -> Result<Depths, String> {
    let error = || "use depths from 1 to 1024, as in 1,4,32 or 1,2,...,128".to_string();
    let mut depths: Vec<u32> = Vec::new();
    let mut words = text.split(',').peekable();
    while let Some(word) = words.next() {
        if word == "..." {
            let last = words.peek().and_then(|word| word.parse::<u32>().ok()).ok_or_else(error)?;
            let &[.., a, b] = &depths[..] else { return Err(error()) };
            let next =
                |c: u32| if b.is_multiple_of(a) && b > a { c * (b / a) } else { c + b.saturating_sub(a) };
            let mut depth = next(b);
            while depth < last && depth > b {
                depths.push(depth);
                depth = next(depth);
            }
            continue;
        }
        let depth = word.parse().ok().filter(|depth| (1..=1024).contains(depth)).ok_or_else(error)?;
        if depths.contains(&depth) {
            return Err(error());
        }
        depths.push(depth);
    }
    Ok(Depths(depths))
}

/// Each path needs a disk and an I/O thread.
const MAX_PATHS: usize = 16;

fn jobs(names: &str) -> Vec<FioJob> {
    // Cannot fail: these are our names, and a test parses them.
    names.split(',').filter_map(|name| name.parse().ok()).collect()
}

fn twice<T: PartialEq>(all: &[T]) -> Option<&T> {
    all.iter().enumerate().find(|(n, one)| all[..*n].contains(one)).map(|(_, one)| one)
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
