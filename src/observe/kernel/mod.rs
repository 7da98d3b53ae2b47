//! Kernel evidence: which kernel functions ran during a span, how often, and who called them.
//!
//! What lives here: counts of kernel functions and KVM tracepoints, and sampled stacks. They come from tracefs: kprobe
//! events and hist triggers in a separate tracing instance, so that other users' tracing is untouched and nothing is
//! left behind. If the kernel lacks these, perf events count what they can. What may not: an interpretation of counts.
//! Counts are the whole host's, not one VM's.

mod names;
mod perf;
mod stacks;
mod tracefs;

use std::fmt;

use serde::Serialize;

pub use names::{EVIDENCE, STACKS, Vendor};
use perf::Perf;
pub use stacks::{Frame, StackTree};
use tracefs::Session;

/// Why there is no evidence.
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

    /// Counts `name`; the reason if this kernel has nothing of that name.
    fn count(&mut self, name: &str, stacks: bool) -> Result<Option<&'static str>, EvidenceError> {
        match self {
            Counter::Tracefs(session) => session.count(name, stacks && STACKS.contains(&name)),
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

/// What is counted, and why not where it is absent.
#[derive(Debug)]
struct Name {
    name: String,
    absent: Option<&'static str>,
}

/// Counting, from [`KernelEvidence::start`] to [`KernelEvidence::stop`]. Dropping it switches it off too.
#[derive(Debug)]
pub struct KernelEvidence {
    counter: Counter,
    names: Vec<Name>,
    /// The counts when the last of them was switched on.
    base: Vec<Option<u64>>,
}

impl KernelEvidence {
    /// Counts `names` from now on: kernel functions (`irqfd_wakeup`), tracepoints with their group (`kvm:kvm_exit`), and
    /// functions with the value of their second argument (`flat_send_IPI_mask(0xf2)`). A name that this kernel does not have is shown as absent. Of those in [`STACKS`] the first
    /// few hundred stacks are kept.
    ///
    /// # Errors
    /// See [`EvidenceError`]. On an error, nothing is left switched on.
    pub fn start(names: &[&str]) -> Result<KernelEvidence, EvidenceError> {
        KernelEvidence::with(names, true)
    }

    /// The same without stacks, which take time to store and to read.
    ///
    /// # Errors
    /// See [`EvidenceError`]; nothing is left on.
    pub fn counts_only(names: &[&str]) -> Result<KernelEvidence, EvidenceError> {
        KernelEvidence::with(names, false)
    }

    fn with(names: &[&str], stacks: bool) -> Result<KernelEvidence, EvidenceError> {
        let mut counter = Counter::open()?;
        let mut counted = Vec::with_capacity(names.len());
        for &name in names {
            counted.push(Name { name: name.into(), absent: counter.count(name, stacks)? });
        }
        let mut this = KernelEvidence { counter, base: vec![Some(0); counted.len()], names: counted };
        // Switching the counters on takes time, and so does reading them. They are read twice in one order, so all of them count for
        // equally long spans.
        this.base = this.hits()?;
        Ok(this)
    }

    /// Counts from 0 again.
    ///
    /// # Errors
    /// Tracefs cannot be read any more.
    pub fn restart(&mut self) -> Result<(), EvidenceError> {
        self.base = self.hits()?;
        Ok(())
    }

    fn hits(&self) -> Result<Vec<Option<u64>>, EvidenceError> {
        self.names.iter().map(|name| self.counter.hits(&name.name)).collect()
    }

    /// Returns the counts up to now; counting continues.
    ///
    /// # Errors
    /// Tracefs cannot be read any more.
    pub fn read(&self) -> Result<Counts, EvidenceError> {
        let counts = self.names.iter().zip(self.hits()?).zip(&self.base).map(|((name, now), base)| {
            let hits = now.zip(*base).map(|(now, base)| now.saturating_sub(base));
            let vendor = Vendor::of(&name.name);
            let reason = match vendor {
                Some(vendor) if !vendor.is_loaded() => Some(format!("{} is not loaded", vendor.module())),
                _ => name.absent.map(String::from),
            };
            let absent = reason.filter(|_| hits.is_none());
            Counted { name: name.name.clone(), hits, tracepoint: name.name.contains(':'), vendor, absent }
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
    /// Hits; `None`: this kernel has nothing of that name.
    pub hits: Option<u64>,
    /// Whether it is a tracepoint.
    pub tracepoint: bool,
    /// Whose KVM it belongs to; `None`: it is common to both.
    pub vendor: Option<Vendor>,
    /// Why there are no hits.
    pub absent: Option<String>,
}

impl Counts {
    /// The hits of `name`; `None` if it was not requested or is absent.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counts.iter().find(|counted| counted.name == name)?.hits
    }
}

impl Counts {
    fn lines(&self, f: &mut fmt::Formatter<'_>, vendor: Option<Vendor>) -> fmt::Result {
        for Counted { name, hits, absent, .. } in
            self.counts.iter().filter(|counted| counted.vendor == vendor)
        {
            match (hits, absent) {
                (Some(hits), _) => writeln!(f, "  {name:<34} {hits:>10}")?,
                (None, Some(reason)) => writeln!(f, "  {name:<34} {:>10}: {reason}", "absent")?,
                (None, None) => writeln!(f, "  {name:<34} {:>10}", "absent")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel, whole host ({})", self.method)?;
        self.lines(f, None)?;
        for vendor in Vendor::ALL {
            let mut of_vendor =
                self.counts.iter().filter(|counted| counted.vendor == Some(vendor)).peekable();
            if of_vendor.peek().is_none() {
                continue;
            }
            // What is loaded has one reason per name; what is not, one for all of them.
            match of_vendor.any(|counted| counted.hits.is_some()) || vendor.is_loaded() {
                true => {
                    writeln!(f, " {}'s:", vendor.name())?;
                    self.lines(f, Some(vendor))?;
                }
                false => writeln!(f, " {}'s: all absent, {} is not loaded", vendor.name(), vendor.module())?,
            }
        }
        self.stacks.iter().try_for_each(|tree| write!(f, "\n{tree}"))
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
