//! What the hardware report tries: each trial is one run of the probe guest, with what the kernel must count meanwhile.
//! docs/hardware.md has a row for each.

use crate::observe::kernel::{Counts, Vendor};

/// Kicks, and completions, of each round of a trial.
pub const REQUESTS: u64 = 200;
/// Counts are the whole host's, and a machine of its own has a few interrupts beside: this much is not looked at.
const OTHERS: u64 = REQUESTS / 10;
/// A page's first kick is an EPT violation, or a nested page fault, and emulated; one more for whatever dropped the page since.
const NOT_FAST: u64 = 2;

/// What a host is said to have, which decides what must be counted.
#[derive(Clone, Copy, Debug)]
pub struct Claims {
    /// Whose KVM it is.
    pub vendor: Option<Vendor>,
    /// `check` says that ioeventfds of length 0 are fast.
    pub fast_mmio: bool,
    /// `check` says that KVM posts to a vCPU.
    pub posts: bool,
}

/// One run of the probe guest.
#[derive(Debug)]
pub struct Trial {
    /// Its row in docs/hardware.md.
    pub name: &'static str,
    /// Keys of `--disk`.
    pub disk: &'static str,
    /// Keys of the probe.
    pub guest: &'static str,
    /// What must be counted; the guest itself must complete each request once, in any case.
    pub wants: Vec<Want>,
}

/// A count and its bounds.
#[derive(Debug)]
pub struct Want {
    /// A name of the kernel evidence.
    pub name: &'static str,
    /// The least that is expected.
    pub least: u64,
    /// The most that is expected.
    pub most: u64,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All counts are within their bounds.
    AsExpected,
    /// Something is not as expected.
    Otherwise,
    /// The guest did what it should; the kernel could not be asked.
    NotCounted,
    /// It could not be tried.
    NotRun,
}

impl Verdict {
    /// As the report shows it.
    pub fn text(&self) -> &'static str {
        match self {
            Verdict::AsExpected => "as expected",
            Verdict::Otherwise => "NOT AS EXPECTED",
            Verdict::NotCounted => "completed, not counted",
            Verdict::NotRun => "not run",
        }
    }
}

fn at_least(name: &'static str, least: u64) -> Want {
    Want { name, least, most: u64::MAX }
}

fn at_most(name: &'static str, most: u64) -> Want {
    Want { name, least: 0, most }
}

/// All trials, for a host with these claims.
pub fn trials(claims: Claims) -> Vec<Trial> {
    let trial = |name, disk, guest, wants| Trial { name, disk, guest, wants };
    let fast = |kicks: u64| match claims.fast_mmio {
        true => at_least("kvm:kvm_fast_mmio", kicks - NOT_FAST),
        false => at_most("kvm:kvm_fast_mmio", 0),
    };
    let kicks = at_least("ioeventfd_write", REQUESTS);
    vec![
        trial("fast MMIO", "notify=fast-mmio", "wait=spin", vec![fast(REQUESTS), kicks]),
        trial("kick with a length", "notify=mmio", "wait=spin", vec![at_most("kvm:kvm_fast_mmio", 0)]),
        trial("irqfd", "complete=irqfd", "wait=spin", completion(claims, "irqfd_wakeup", true)),
        trial(
            "KVM_SIGNAL_MSI",
            "complete=signal-msi",
            "wait=spin",
            completion(claims, "kvm_send_userspace_msi", true),
        ),
        trial("halted vCPU", "complete=irqfd", "wait=halt", completion(claims, "irqfd_wakeup", false)),
        trial(
            "level interrupts",
            "complete=resample",
            "wait=spin irq=intx",
            vec![at_least("irqfd_resampler_ack", REQUESTS)],
        ),
        trial("masked vectors", "complete=irqfd", "wait=halt mask_every=10 hold_us=100", Vec::new()),
        trial("moved vectors", "complete=irqfd", "wait=spin route_every=10 vector2=0x50", Vec::new()),
        trial("moved BAR", "notify=fast-mmio", "wait=spin rounds=3 move_bar=1", vec![fast(3 * REQUESTS - 2)]),
    ]
}

/// A completion by `way`; `runs`: the vCPU does not halt meanwhile.
fn completion(claims: Claims, way: &'static str, runs: bool) -> Vec<Want> {
    let mut wants = vec![at_least(way, REQUESTS)];
    wants.extend(claims.vendor.map(|vendor| match vendor {
        Vendor::Intel => at_least("vmx_deliver_interrupt", REQUESTS),
        Vendor::Amd => at_least("svm_deliver_interrupt", REQUESTS),
    }));
    match claims.posts {
        true => {
            wants.push(at_least("kvm:kvm_apicv_accept_irq", REQUESTS));
            // Nobody makes a running vCPU leave the guest.
            wants.extend(runs.then(|| at_most("kvm_vcpu_kick", OTHERS)));
        }
        false => wants.push(at_most("kvm:kvm_apicv_accept_irq", 0)),
    }
    wants
}

/// Judges a trial by the counts, or by why there are none; and says what was found.
pub fn judge(trial: &Trial, counts: Result<&Counts, &str>) -> (Verdict, String) {
    let counts = match counts {
        Ok(counts) => counts,
        Err(_) if trial.wants.is_empty() => {
            return (Verdict::AsExpected, "each request completed once".into());
        }
        Err(reason) => return (Verdict::NotCounted, reason.into()),
    };
    let (mut verdict, mut found) = (Verdict::AsExpected, vec!["each request completed once".to_string()]);
    for want in &trial.wants {
        let Some(hits) = counts.get(want.name) else {
            let reason = counts.counts.iter().find(|counted| counted.name == want.name);
            let reason = reason.and_then(|counted| counted.absent.as_deref()).unwrap_or("not counted");
            found.push(format!("{}: {reason}", want.name));
            if verdict == Verdict::AsExpected {
                verdict = Verdict::NotCounted;
            }
            continue;
        };
        let within = (want.least..=want.most).contains(&hits);
        if !within {
            verdict = Verdict::Otherwise;
        }
        let bound = match want.most {
            u64::MAX => format!("at least {}", want.least),
            most => format!("at most {most}"),
        };
        let expected = if within { "" } else { "expected " };
        found.push(format!("{} {hits} ({expected}{bound})", want.name));
    }
    (verdict, found.join("; "))
}

#[cfg(test)]
#[path = "trials_tests.rs"]
mod tests;
