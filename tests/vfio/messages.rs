//! What KVM did with interrupts, by vector: messages that it was given, and what it injected of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Hits by interrupt vector.
pub type ByVector = BTreeMap<u64, u64>;

/// Counts from [`Messages::start`] on, in a tracing instance of its own.
pub struct Messages {
    instance: PathBuf,
}

/// Tracepoint, key, condition. A message's lowest eight bits are its vector. An injection that was cut short by an exit is
/// made again, and is the same interrupt.
const MESSAGES: (&str, &str, &str) = ("kvm_msi_set_irq", "data", "");
const INJECTIONS: (&str, &str, &str) = ("kvm_inj_virq", "vector", " if reinjected == 0");

impl Messages {
    /// `None` and a line that says why where the kernel does not let us count.
    pub fn start() -> Option<Messages> {
        let instance =
            Path::new("/sys/kernel/tracing/instances").join(format!("messages-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&instance) {
            println!("messages and injections are not counted: {}: {error}", instance.display());
            return None;
        }
        let this = Messages { instance };
        for (event, key, condition) in [MESSAGES, INJECTIONS] {
            fs::write(this.file(event, "trigger"), format!("hist:keys={key}{condition}")).unwrap();
        }
        Some(this)
    }

    fn file(&self, event: &str, name: &str) -> PathBuf {
        self.instance.join("events/kvm").join(event).join(name)
    }

    /// Lines like `{ data:      16418 } hitcount:       2001`.
    fn hist(&self, (event, key, _): (&str, &str, &str)) -> ByVector {
        let text = fs::read_to_string(self.file(event, "hist")).unwrap();
        let mut counts = ByVector::new();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["{", name, value, "}", "hitcount:", hits] = words[..]
                && name.trim_end_matches(':') == key
            {
                *counts.entry(value.parse::<u64>().unwrap() & 0xff).or_default() +=
                    hits.parse::<u64>().unwrap();
            }
        }
        counts
    }

    /// MSI messages that KVM was given, by irqfds and by `KVM_SIGNAL_MSI`.
    pub fn given(&self) -> ByVector {
        self.hist(MESSAGES)
    }

    /// Interrupts that it injected into vCPUs, whatever they came from. A message that comes while the last of its vector still
    /// waits in the local APIC falls together with it: one injection for two.
    pub fn injected(&self) -> ByVector {
        self.hist(INJECTIONS)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        for (event, key, condition) in [MESSAGES, INJECTIONS] {
            let _ = fs::write(self.file(event, "trigger"), format!("!hist:keys={key}{condition}"));
        }
        let _ = fs::remove_dir(&self.instance);
    }
}
