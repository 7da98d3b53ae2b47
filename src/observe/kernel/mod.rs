//! Kernel evidence: which kernel functions ran during a span, how often, and who called them.
//!
//! What lives here: counts of kernel functions and KVM tracepoints, and sampled stacks. They come from tracefs: kprobe
//! events and hist triggers in a separate tracing instance, so that other users' tracing is untouched and nothing is
//! left behind. If the kernel lacks these, perf events count what they can. What may not: an interpretation of counts.
//! Counts are the whole host's, not one VM's.

mod perf;
mod stacks;
mod tracefs;

use std::fmt;

use serde::Serialize;

use perf::Perf;
pub use stacks::{Frame, StackTree};
use tracefs::Session;

/// The functions that show which path a kick and a completion took, and tracepoints of the same events.
pub const EVIDENCE: &[&str] = &[
    "ioeventfd_write",
    "irqfd_wakeup",
    "irqfd_inject",
    "irqfd_resampler_ack",
    "kvm_arch_set_irq_inatomic",
    "kvm_send_userspace_msi",
    "kvm_set_msi",
    "kvm_vm_ioctl_irq_line",
    "kvm_set_irq_routing",
    "irq_bypass_register_producer",
    "irq_bypass_register_consumer",
    "irq_bypass_unregister_producer",
    "irq_bypass_unregister_consumer",
    "vfio_msihandler",
    "vfio_intx_handler",
    "vmx_pi_update_irte",
    "avic_pi_update_irte",
    "svm_pi_update_irte",
    "kvm:kvm_fast_mmio",
    "kvm:kvm_mmio",
    "kvm:kvm_pio",
    "kvm:kvm_exit",
    "kvm:kvm_userspace_exit",
    "kvm:kvm_msi_set_irq",
    "kvm:kvm_set_irq",
    "kvm:kvm_pi_irte_update",
];

/// The functions whose callers are sampled: the end of the kick, the two ways to interrupt the guest, and the function
/// in which both end on Intel.
pub const STACKS: &[&str] =
    &["ioeventfd_write", "irqfd_wakeup", "kvm_send_userspace_msi", "vmx_deliver_interrupt"];

/// Why the kernel's functions cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// tracefs is not mounted.
    #[error("tracefs is not mounted; mount it: mount -t tracefs nodev /sys/kernel/tracing")]
    NotMounted,
    /// Permission denied, without root.
    #[error("no permission to trace the kernel; run doorbell as root")]
    Permission,
    /// Permission denied, as root.
    #[error("this kernel cannot be traced, even by root (lockdown; see /sys/kernel/security/lockdown)")]
    Lockdown,
    /// The kernel was built without a feature.
    #[error("this kernel cannot count events in tracefs: it lacks {0}")]
    Lacks(&'static str),
    /// The instance exists already, or no more can be made.
    #[error("tracing is in use by another program: {0}")]
    Busy(String),
    /// Anything else.
    #[error("tracefs: {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// errno.
        source: std::io::Error,
    },
}

/// The counter: tracefs, or perf events if the kernel's tracefs cannot count.
#[derive(Debug)]
enum Counter {
    Tracefs(Session),
    Perf(Perf),
}

impl Counter {
    fn open() -> Result<Counter, EvidenceError> {
        match Session::open() {
            Err(EvidenceError::Lacks(_)) => Perf::open().map(Counter::Perf),
            session => session.map(Counter::Tracefs),
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Counter::Tracefs(_) => {
                "tracefs: kprobe events and tracepoints with hist triggers, in an instance of our own"
            }
            Counter::Perf(_) => "perf events: this kernel's tracefs cannot count",
        }
    }

    fn count(&mut self, name: &str) -> Result<(), EvidenceError> {
        match self {
            Counter::Tracefs(session) => session.count(name, STACKS.contains(&name)),
            Counter::Perf(perf) => perf.count(name),
        }
    }

    fn hits(&self, name: &str) -> Result<Option<u64>, EvidenceError> {
        match self {
            Counter::Tracefs(session) => session.hits(name),
            Counter::Perf(perf) => perf.hits(name),
        }
    }

    fn stacks(&self) -> Result<Vec<StackTree>, EvidenceError> {
        match self {
            Counter::Tracefs(session) => session.stacks(),
            Counter::Perf(_) => Ok(Vec::new()),
        }
    }
}

/// Counts from [`KernelEvidence::start`] to [`KernelEvidence::stop`]. Drop ends it, too.
#[derive(Debug)]
pub struct KernelEvidence {
    counter: Counter,
    names: Vec<String>,
    /// The counts at the moment when the last event was switched on.
    base: Vec<Option<u64>>,
}

impl KernelEvidence {
    /// Counts `names` from now on: kernel functions (`irqfd_wakeup`), and tracepoints with their group
    /// (`kvm:kvm_exit`). A name that this kernel lacks is shown as absent. For those in [`STACKS`], the first few
    /// hundred stacks are kept.
    ///
    /// # Errors
    /// See [`EvidenceError`]. On an error, nothing is left switched on.
    pub fn start(names: &[&str]) -> Result<KernelEvidence, EvidenceError> {
        let mut counter = Counter::open()?;
        for name in names {
            counter.count(name)?;
        }
        let mut this = KernelEvidence {
            counter,
            names: names.iter().map(|&name| name.into()).collect(),
            base: vec![Some(0); names.len()],
        };
        // Switching on takes a while, and so does reading. Both reads go through the events in the same order, so each
        // event has counted for a span of about the same length, if not for exactly the same one.
        this.base = this.hits()?;
        Ok(this)
    }

    fn hits(&self) -> Result<Vec<Option<u64>>, EvidenceError> {
        self.names.iter().map(|name| self.counter.hits(name)).collect()
    }

    /// Returns the counts up to now; counting continues.
    ///
    /// # Errors
    /// Tracefs cannot be read any more.
    pub fn read(&self) -> Result<Counts, EvidenceError> {
        let counts = self.names.iter().zip(self.hits()?).zip(&self.base).map(|((name, now), base)| {
            let hits = now.zip(*base).map(|(now, base)| now.saturating_sub(base));
            Counted { name: name.clone(), hits, tracepoint: name.contains(':') }
        });
        Ok(Counts { method: self.counter.method(), counts: counts.collect(), stacks: self.counter.stacks()? })
    }

    /// Ends the counting: returns the counts and restores the host's tracing.
    ///
    /// # Errors
    /// Tracefs cannot be read any more.
    pub fn stop(self) -> Result<Counts, EvidenceError> {
        self.read()
    }
}

impl fmt::Display for KernelEvidence {
    /// For display: "22 of 26 kernel functions and tracepoints".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = self.base.iter().flatten().count();
        write!(f, "{here} of {} kernel functions and tracepoints", self.names.len())
    }
}

/// Counts of a span, on the whole host.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// How it was counted.
    pub method: &'static str,
    /// One per name, in the requested order.
    pub counts: Vec<Counted>,
    /// Sampled stacks, one tree per function.
    pub stacks: Vec<StackTree>,
}

/// One name's count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Function, or `group:tracepoint`.
    pub name: String,
    /// Hits; `None`: this kernel lacks the name (inlined, or not built in).
    pub hits: Option<u64>,
    /// Whether it is a tracepoint.
    pub tracepoint: bool,
}

impl Counts {
    /// The hits of `name`; `None` if it was not requested or is absent.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counts.iter().find(|counted| counted.name == name)?.hits
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel, whole host ({})", self.method)?;
        for Counted { name, hits, .. } in &self.counts {
            match hits {
                Some(hits) => writeln!(f, "  {name:<34} {hits:>10}")?,
                None => writeln!(f, "  {name:<34} {:>10}", "absent")?,
            }
        }
        self.stacks.iter().try_for_each(|tree| write!(f, "\n{tree}"))
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
