use std::fs::File;
use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::reread::read_again;

/// The host's interrupt counts from `/proc/interrupts`, either since boot or between two readings.
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
    /// The sum over all CPUs.
    pub count: u64,
    /// Chip, hardware number, action: `PCI-MSIX-0000:00:03.0 0-edge vfio-msix[0](0000:00:03.0)`.
    pub what: String,
}

impl InterruptLine {
    /// Returns whether this is a posted-interrupt IPI: notification (PIN), nested notification (NPI), wakeup (PIW), or
    /// notification to the host (PMN).
    pub fn is_posted(&self) -> bool {
        matches!(self.label.as_str(), "PIN" | "NPI" | "PIW" | "PMN")
    }

    /// Returns whether this is a timer interrupt or an IPI that a VMM causes: local timer (LOC), reschedule (RES),
    /// function call (CAL).
    pub fn is_ipi_or_timer(&self) -> bool {
        matches!(self.label.as_str(), "LOC" | "RES" | "CAL")
    }

    /// Returns whether VFIO handles this interrupt. Its count includes only interrupts that reached the host. With
    /// posted interrupts it stands still while the guest's count grows.
    pub fn is_vfio(&self) -> bool {
        ["vfio-msix[", "vfio-msi[", "vfio-intx("].iter().any(|name| self.what.contains(name))
    }
}

impl ProcInterrupts {
    /// Reads the counts since boot.
    ///
    /// # Errors
    /// /proc/interrupts cannot be read.
    pub fn now() -> io::Result<ProcInterrupts> {
        // Opened once: a thread that has entered its sandbox opens nothing any more.
        static FILE: OnceLock<io::Result<File>> = OnceLock::new();
        match FILE.get_or_init(|| File::open("/proc/interrupts")) {
            Ok(file) => Ok(ProcInterrupts::parse(&read_again(file)?)),
            Err(error) => Err(error.kind().into()),
        }
    }

    /// Parses the text of `/proc/interrupts`. Skips lines of another form.
    pub fn parse(text: &str) -> ProcInterrupts {
        let mut lines = text.lines();
        let cpus = lines.next().unwrap_or("").split_whitespace().filter(|w| w.starts_with("CPU")).count();
        let line = |line: &str| {
            let (label, rest) = line.split_once(':')?;
            let mut words = rest.split_whitespace().peekable();
            let mut count = 0u64;
            for _ in 0..cpus {
                // ERR and MIS have one number, however many CPUs there are.
                let Some(number) = words.peek().and_then(|word| word.parse::<u64>().ok()) else { break };
                count = count.saturating_add(number);
                words.next();
            }
            let what = words.collect::<Vec<_>>().join(" ");
            Some(InterruptLine { label: label.trim().into(), count, what })
        };
        ProcInterrupts { lines: lines.filter_map(line).collect() }
    }

    /// Returns all lines in the order of the file.
    pub fn lines(&self) -> &[InterruptLine] {
        &self.lines
    }

    /// Returns the count of the line with the label `label`.
    pub fn get(&self, label: &str) -> Option<u64> {
        self.lines.iter().find(|line| line.label == label).map(|line| line.count)
    }

    /// Returns the sum of all lines.
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.count).sum()
    }

    /// Returns the counts since `earlier`. A line that is new, or whose IRQ number has a new owner, counts from 0.
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

    /// Returns the lines that concern a VMM: posted interrupts, IPIs and timers, VFIO.
    pub fn relevant(&self) -> impl Iterator<Item = &InterruptLine> {
        self.lines.iter().filter(|line| line.is_posted() || line.is_ipi_or_timer() || line.is_vfio())
    }
}

#[cfg(test)]
#[path = "proc_interrupts_tests.rs"]
mod tests;
