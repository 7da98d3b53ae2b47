use std::fs::File;
use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::reread::read_again;

/// The host's interrupt counts, `/proc/interrupts`, at one moment or over a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ProcInterrupts {
    lines: Vec<InterruptLine>,
}

/// One line of `/proc/interrupts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptLine {
    /// IRQ number, or an architecture's name: `PIN`, `LOC`.
    pub label: String,
    /// Sum over all CPUs.
    pub count: u64,
    /// Chip, hardware number, action: `PCI-MSIX-0000:00:03.0 0-edge vfio-msix[0](0000:00:03.0)`.
    pub what: String,
}

impl InterruptLine {
    /// Whether it is a posted-interrupt IPI: notification (PIN), nested notification (NPI), wakeup (PIW), or
    /// notification to the host (PMN).
    pub fn is_posted(&self) -> bool {
        matches!(self.label.as_str(), "PIN" | "NPI" | "PIW" | "PMN")
    }

    /// Whether it is an IPI that a VMM causes: local timer (LOC), reschedule (RES), function call (CAL).
    pub fn is_ipi_or_timer(&self) -> bool {
        matches!(self.label.as_str(), "LOC" | "RES" | "CAL")
    }

    /// Whether VFIO handles it: such a line counts only what reached the host, so with posted interrupts it
    /// does not grow while the guest's count does.
    pub fn is_vfio(&self) -> bool {
        ["vfio-msix[", "vfio-msi[", "vfio-intx("].iter().any(|name| self.what.contains(name))
    }
}

impl ProcInterrupts {
    /// The counts now.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn now() -> io::Result<ProcInterrupts> {
        // Opened once: a thread that has entered its sandbox opens nothing any more.
        static FILE: OnceLock<io::Result<File>> = OnceLock::new();
        match FILE.get_or_init(|| File::open("/proc/interrupts")) {
            Ok(file) => Ok(ProcInterrupts::parse(&read_again(file)?)),
            Err(error) => Err(error.kind().into()),
        }
    }

    /// Reads the text of `/proc/interrupts`; lines of another form are skipped.
    pub fn parse(text: &str) -> ProcInterrupts {
        let mut lines = text.lines();
        let cpus = lines.next().unwrap_or("").split_whitespace().filter(|w| w.starts_with("CPU")).count();
        let line = |line: &str| {
            let (label, rest) = line.split_once(':')?;
            let mut words = rest.split_whitespace().peekable();
            let mut count = 0u64;
            for _ in 0..cpus {
                // ERR and MIS have one number whatever the CPUs.
                let Some(number) = words.peek().and_then(|word| word.parse::<u64>().ok()) else { break };
                count = count.saturating_add(number);
                words.next();
            }
            let what = words.collect::<Vec<_>>().join(" ");
            Some(InterruptLine { label: label.trim().into(), count, what })
        };
        ProcInterrupts { lines: lines.filter_map(line).collect() }
    }

    /// All lines.
    pub fn lines(&self) -> &[InterruptLine] {
        &self.lines
    }

    /// The count of the line labelled `label`.
    pub fn get(&self, label: &str) -> Option<u64> {
        self.lines.iter().find(|line| line.label == label).map(|line| line.count)
    }

    /// All interrupts of all CPUs.
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.count).sum()
    }

    /// What came since `earlier`. A line that is new, or whose IRQ number now belongs to something else, counts from 0.
    pub fn since(&self, earlier: &ProcInterrupts) -> ProcInterrupts {
        let delta = |line: &InterruptLine| {
            let before = earlier
                .lines
                .iter()
                .find(|l| l.label == line.label && l.what == line.what)
                .map_or(0, |l| l.count);
            InterruptLine { count: line.count.saturating_sub(before), ..line.clone() }
        };
        ProcInterrupts { lines: self.lines.iter().map(delta).collect() }
    }

    /// The lines that concern a VMM: posted interrupts, IPIs and timers, VFIO.
    pub fn relevant(&self) -> impl Iterator<Item = &InterruptLine> {
        self.lines.iter().filter(|line| line.is_posted() || line.is_ipi_or_timer() || line.is_vfio())
    }
}

#[cfg(test)]
#[path = "proc_interrupts_tests.rs"]
mod tests;
