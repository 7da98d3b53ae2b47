//! The results of a bench: the same types for every guest, serialized as JSON.
//!
//! docs/results.md and docs/bench.schema.json describe the JSON. A field's name ends in its unit. A value that could not
//! be measured is `None` (`null` in the JSON), never 0.

use serde::{Deserialize, Serialize};

use crate::host::HostFacts;
use crate::host::{HostLoad, InterruptLine, ProcInterrupts};

/// Name and version of the format that this version writes and reads.
pub const SCHEMA: &str = "doorbell-bench/2";

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Facts of the host.
    pub host: HostFacts,
    /// Facts of the run.
    pub run: RunFacts,
    /// One per guest x path x job; the rows of a job are adjacent.
    pub rows: Vec<Row>,
}

/// How a run was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// Seconds since 1970 when it started.
    pub started_unix: u64,
    /// Seconds it took, start of the guest included.
    pub took_s: f64,
    /// Rounds: how often every row was measured.
    pub rounds: u64,
    /// Seconds of each measurement, if it is limited by time.
    pub runtime_s: Option<f64>,
    /// vCPUs of the guest.
    pub vcpus: u64,
    /// Guest RAM, in bytes.
    pub memory_bytes: u64,
    /// Size of each disk, in bytes.
    pub disk_bytes: Option<u64>,
    /// What the disks are: "memory file", a directory, or the backend if it needs no file.
    pub disk: Option<String>,
    /// Versions of the reference VMMs; `None`: none was measured.
    pub peer: Option<String>,
    /// Kernel release of a Linux guest.
    pub guest_kernel: Option<String>,
    /// Version of fio in the guest.
    pub fio: Option<String>,
    /// The job file that was run, as it was given; each of its sections is a job.
    pub fio_file: Option<String>,
    /// Load of the host (1 minute) before it began.
    pub load_before: Option<f64>,
    /// And after its end: with the run itself.
    pub load_after: Option<f64>,
    /// Percent of the host's CPU time that its own hypervisor gave to others.
    pub steal_percent: Option<f64>,
    /// The command line.
    pub command: Option<Vec<String>>,
    /// Why the run ended before its last round; `None`: it did not.
    pub incomplete: Option<String>,
    /// From the construction of a VM with one disk to the first instruction of its guest, in nanoseconds.
    pub first_instruction_ns: Option<u64>,
    /// Resident memory of this process beyond guest RAM while that guest ran, in bytes.
    pub resident_bytes: Option<u64>,
    /// Interrupts of the host during the run, over all CPUs: the lines of /proc/interrupts that concern a VMM (posted
    /// interrupts, IPIs, timers, VFIO). Other programs on the host caused some of them.
    pub host_interrupts: Option<Vec<InterruptLine>>,
    /// All lines of /proc/interrupts together, over the run.
    pub host_interrupts_total: Option<u64>,
}

impl RunFacts {
    /// The facts with how busy the host was since `before`, and the command line.
    pub fn with_load(self, before: &HostLoad) -> RunFacts {
        let now = HostLoad::now();
        RunFacts {
            load_before: before.load,
            load_after: now.load,
            steal_percent: now.steal_since(before),
            command: Some(std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()),
            ..self
        }
    }

    /// The facts with what /proc/interrupts counted over the run; unchanged where there is no such file.
    pub fn with_interrupts(self, over_the_run: &ProcInterrupts) -> RunFacts {
        let any = !over_the_run.lines().is_empty();
        RunFacts {
            host_interrupts: any.then(|| over_the_run.relevant().cloned().collect()),
            host_interrupts_total: any.then(|| over_the_run.total()),
            ..self
        }
    }
}

/// One path, on one job, in one guest, over all rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// "linux" or "probe".
    pub guest: String,
    /// The job: "rand-read-1", "floor", ...
    pub job: String,
    /// The reference VMM: "qemu", "cloud-hypervisor", with "=FILE" if there are two of a kind; "host": fio without a VM.
    /// `None`: doorbell.
    pub peer: Option<String>,
    /// Notify path.
    pub notify: Option<String>,
    /// Complete path.
    pub complete: Option<String>,
    /// Backend; "vfio": a passed-through device of the host.
    pub backend: Option<String>,
    /// PCI address of that device. `None`: a disk of ours.
    pub device: Option<String>,
    /// Request queues.
    pub queues: Option<u64>,
    /// Requests in flight.
    pub depth: Option<u64>,
    /// How the host waits for a kick: "blocking", "busy-poll" of the eventfd, "memory-poll" of the ring (floor: of a
    /// word), "exit": the vCPU's thread handles it, "main-loop": the main thread of a reference VMM without I/O thread.
    pub wait: Option<String>,
    /// Longest busy-poll of the I/O thread before it sleeps, in microseconds; 0: none.
    pub poll_us: Option<u64>,
    /// How interrupts are held back: "off", "auto", or "N:US". `None`: not a disk of ours.
    pub moderate: Option<String>,
    /// The layout of its ring: "split" or "packed". `None`: not a disk of ours.
    pub ring: Option<String>,

    /// Why the row could not be measured on this host; then it has no figures. `None`: it was measured.
    pub not_here: Option<String>,

    /// Requests per second, over all rounds.
    pub iops: Option<f64>,
    /// IOPS round by round, in order; `None` for a round that was lost.
    pub round_iops: Vec<Option<f64>>,
    /// Medians round by round, in the same order.
    pub round_p50_ns: Vec<Option<f64>>,
    /// Fastest request.
    pub min_ns: Option<u64>,
    /// Mean.
    pub mean_ns: Option<f64>,
    /// Median.
    pub p50_ns: Option<u64>,
    /// 90th percentile.
    pub p90_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
    /// 99.9th percentile.
    pub p999_ns: Option<u64>,
    /// Median from the kick to the I/O thread: from before the guest's store (a disk's: from before it publishes the
    /// request) until the thread saw it. `None`: several requests at a time, or the guest's counter is not the host's.
    pub kick_p50_ns: Option<u64>,
    /// Median from the interrupt to the guest: from before it until the guest saw its handler's mark.
    pub interrupt_p50_ns: Option<u64>,

    /// Requests that the device completed while the row was measured. The counts below cover the same time. Those of a
    /// passed-through device are fio's.
    pub requests: Option<u64>,
    /// Interrupts that the host sent. For a passed-through device: those that it handled, which excludes posted ones.
    pub interrupts: Option<u64>,
    /// Of these, by irqfd.
    pub interrupts_irqfd: Option<u64>,
    /// Of these, by KVM_SIGNAL_MSI.
    pub interrupts_signal_msi: Option<u64>,
    /// Interrupts as the guest counted them: a cross-check.
    pub guest_interrupts: Option<u64>,
    /// Batches of completions for which the driver wanted no interrupt.
    pub interrupts_suppressed: Option<u64>,
    /// Interrupts that were held back, to merge more completions into them.
    pub holds: Option<u64>,
    /// Completions that were merged into a held interrupt.
    pub holds_merged: Option<u64>,
    /// Held interrupts that were sent because their time was over.
    pub holds_expired: Option<u64>,
    /// Of these, interrupts into which no further completion was merged.
    pub holds_failed: Option<u64>,
    /// Kicks that an ioeventfd caught in the kernel.
    pub kicks_ioeventfd: Option<u64>,
    /// Kicks that left the guest; the vCPU thread signalled the eventfd.
    pub kicks_exit: Option<u64>,
    /// Of these, kicks that an ioeventfd should have caught. More than 0 is a bug.
    pub kicks_missed: Option<u64>,
    /// Exits of the guest, including those that KVM handled (KVM's `exits` statistic).
    pub exits: Option<u64>,
    /// Exits that came to the VMM (KVM_RUN returned).
    pub exits_to_user: Option<u64>,
    /// System calls of the I/O thread: waits, interrupts, the backend's own.
    pub iothread_syscalls: Option<u64>,
    /// CPU time of the I/O thread (user and system) for each request, in nanoseconds: also what it spends on looking.
    pub io_thread_cpu_ns_per_request: Option<f64>,

    /// This row compared with the first row of its job, paired by round; above 1 is faster. See `ratio_of`. `None`: it is
    /// that row, or has no round in common with it.
    pub ratio: Option<f64>,
    /// Lower end of the ratio's own 95 % interval; `None` below 6 rounds.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// What the ratio is of. "p50": the first row's median to this one's, at depth 1. "iops": this row's IOPS to the first
    /// one's.
    pub ratio_of: Option<String>,
    /// The conclusion in words, corrected for the number of comparisons in the report.
    pub verdict: Option<String>,
    /// Median of the floor of its kind: the bare ping-pong without virtio.
    pub floor_p50_ns: Option<u64>,
    /// `p50_ns` to `floor_p50_ns`.
    pub floor_ratio: Option<f64>,
    /// Distribution of the latencies, the non-empty buckets of [`super::Buckets`]: (lower bound in ns, requests).
    pub histogram: Option<Vec<(u64, u64)>>,
}

impl Row {
    /// Leaves out percentiles that too few requests stand behind: one that a share q of the requests does not exceed needs
    /// 10 / (1 - q), so that ten are beyond it.
    pub fn keep_supported_percentiles(&mut self) {
        let requests = self.requests.unwrap_or(u64::MAX);
        for (percentile, needed) in [
            (&mut self.p50_ns, 20),
            (&mut self.p90_ns, 100),
            (&mut self.p99_ns, 1000),
            (&mut self.p999_ns, 10_000),
        ] {
            if requests < needed {
                *percentile = None;
            }
        }
    }
}

/// A count per request; `None` if either is unknown or there was no request.
pub fn per_request(count: Option<u64>, requests: Option<u64>) -> Option<f64> {
    match (count, requests) {
        (Some(count), Some(requests)) if requests > 0 => Some(count as f64 / requests as f64),
        _ => None,
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
