//! Kernel evidence: which kernel functions ran over a span, how often, and from where.
//!
//! What lives here: counts of kernel functions and KVM tracepoints, and sampled stacks, by tracefs: kprobe events and
//! hist triggers in a tracing instance of our own, so that nobody else's tracing is touched and nothing of ours is
//! left. Where the kernel lacks these, perf events count what they can. What may not: a claim about what a count means. Counts are the whole host's, not one VM's.

mod perf;
mod stacks;
mod tracefs;

use std::fmt;

use serde::Serialize;

use perf::Perf;
pub use stacks::{Frame, StackTree};
use tracefs::Session;

/// The functions that tell which path a kick and a completion took, and the tracepoints beside them.
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

/// The functions whose callers are worth seeing: the kick's end, the two ways of interrupting the guest, and where they end
/// on Intel.
pub const STACKS: &[&str] =
    &["ioeventfd_write", "irqfd_wakeup", "kvm_send_userspace_msi", "vmx_deliver_interrupt"];

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// No tracefs.
    #[error("tracefs is not mounted; mount it: mount -t tracefs nodev /sys/kernel/tracing")]
    NotMounted,
    /// Not root.
    #[error("no permission to trace the kernel; run it as root")]
    Permission,
    /// Root, and still not.
    #[error("this kernel does not let even root trace it (lockdown; see /sys/kernel/security/lockdown)")]
    Lockdown,
    /// The kernel was built without something.
    #[error("this kernel cannot count events in tracefs: it lacks {0}")]
    Lacks(&'static str),
    /// Someone else's, or none left.
    #[error("tracing is in use by someone else: {0}")]
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

/// What counts: tracefs, which can do all, or where the kernel's cannot, perf events.
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

/// Counting, from [`KernelEvidence::start`] to [`KernelEvidence::stop`]. Dropping it switches it off too.
#[derive(Debug)]
pub struct KernelEvidence {
    counter: Counter,
    names: Vec<String>,
    /// The counts when the last of them was switched on.
    base: Vec<Option<u64>>,
}

impl KernelEvidence {
    /// Counts `names` from now on: kernel functions (`irqfd_wakeup`), and tracepoints with their group
    /// (`kvm:kvm_exit`). A name that this kernel does not have is shown as absent. Of those in [`STACKS`] the first
    /// few hundred stacks are kept.
    ///
    /// # Errors
    /// See [`EvidenceError`]; nothing is left on.
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
        // Switching them on takes its time, and so does reading. Read twice in one order, all of them have counted for
        // one span, if not for the very same one.
        this.base = this.hits()?;
        Ok(this)
    }

    fn hits(&self) -> Result<Vec<Option<u64>>, EvidenceError> {
        self.names.iter().map(|name| self.counter.hits(name)).collect()
    }

    /// The counts up to now; counting goes on.
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

    /// Ends it: returns the counts and leaves the host's tracing as it was.
    ///
    /// # Errors
    /// Tracefs cannot be read any more.
    pub fn stop(self) -> Result<Counts, EvidenceError> {
        self.read()
    }
}

impl fmt::Display for KernelEvidence {
    /// What is counted: "22 of 26 kernel functions and tracepoints".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = self.base.iter().flatten().count();
        write!(f, "{here} of {} kernel functions and tracepoints", self.names.len())
    }
}

/// What the kernel did over a span, on the whole host.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// How it was counted.
    pub method: &'static str,
    /// One per name, in the order asked for.
    pub counts: Vec<Counted>,
    /// Sampled stacks, one tree per function.
    pub stacks: Vec<StackTree>,
}

/// One name's count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Function, or `group:tracepoint`.
    pub name: String,
    /// Hits; `None`: this kernel has nothing of that name (inlined, or not built in).
    pub hits: Option<u64>,
    /// Whether it is a tracepoint.
    pub tracepoint: bool,
}

impl Counts {
    /// The hits of `name`: `None` if it was not asked for or is absent.
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
