//! `check --hardware-report`: one page about what this host's KVM does, to be sent in. docs/hardware.md says what for.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Item;
use super::trials::{Claims, REQUESTS, Trial, Verdict, judge, trials};
use crate::bench::{MemFile, PROBE_ELF};
use crate::host::HostFacts;
use crate::observe::kernel::{Counts, EVIDENCE, KernelEvidence, Vendor};

/// Longest run of the probe. On hardware each takes a fraction of a second, in emulation some seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a run of the probe cannot show, each with the command that does.
pub(super) const BY_HAND: [(&str, &str); 3] = [
    ("Linux guest", "`scripts/test machine`"),
    ("VFIO", "`scripts/test vfio`, or `doorbell run --vfio BDF ...` with a device of yours (docs/vfio.md)"),
    (
        "posting by a device",
        "steps 1 to 4 of \"irq bypass and posting\" in docs/vfio.md, with a device of yours",
    ),
];

/// The page, and whether nothing on it is against what was expected.
pub(super) struct Page {
    pub text: String,
    /// Trials that ran.
    pub ran: usize,
    /// Trials whose outcome is not as expected.
    pub otherwise: usize,
}

/// Runs all trials and writes the page.
pub(super) fn report(items: &[Item]) -> Page {
    let facts = HostFacts::here();
    let present = |name: &str| items.iter().any(|item| item.name == name && item.present);
    let claims = Claims {
        vendor: Vendor::ALL.into_iter().find(|vendor| facts.kvm_module.as_deref() == Some(vendor.module())),
        fast_mmio: present("fast MMIO"),
        posts: present("posting to a vCPU"),
    };
    let usable = present("virtual machine");
    // Armed once, without stacks: that takes longer than a trial.
    let mut evidence = KernelEvidence::counts_only(EVIDENCE).map_err(|error| error.to_string());
    let (mut rows, mut details, mut ran, mut otherwise) = (String::new(), String::new(), 0, 0);
    for trial in trials(claims) {
        let (verdict, found, counts) = match usable {
            true => try_one(&trial, evidence.as_mut().map_err(|reason| reason.clone())),
            false => (Verdict::NotRun, "no virtual machine can be made here, see above".into(), None),
        };
        ran += usize::from(verdict != Verdict::NotRun);
        otherwise += usize::from(verdict == Verdict::Otherwise);
        rows += &format!("| {} | {} | {found} |\n", trial.name, verdict.text());
        if let Some(counts) = counts {
            details += &format!(
                "\n### {}\n\n`{} {}`\n\n```text\n{}```\n",
                trial.name,
                trial.disk,
                trial.guest,
                shortened(&counts)
            );
        }
    }
    if details.is_empty() {
        details = "\nThere are none: see why above.\n".into();
    }
    let by_hand: String =
        BY_HAND.iter().map(|(name, how)| format!("| {name} | by hand | {how} |\n")).collect();
    let width = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
    let host: String = items.iter().map(|item| item.line(width) + "\n").collect();
    let text = format!(
        "# doorbell hardware report\n\ndoorbell {}\n\n{}\n\n## What this host has\n\n```text\n{host}```\n\n\
         ## What it did\n\nEach line is a run of the probe guest with {REQUESTS} requests, or some rounds of them. Counts are the \
         whole host's: no other VM should run.\n\n| assumption | outcome | found |\n|---|---|---|\n{rows}{by_hand}\n\
         ## Counts\n{details}",
        env!("DOORBELL_VERSION"),
        facts.sentence(),
    );
    Page { text, ran, otherwise }
}

fn try_one(
    trial: &Trial,
    mut evidence: Result<&mut KernelEvidence, String>,
) -> (Verdict, String, Option<Counts>) {
    let begun = evidence
        .as_mut()
        .map_err(|reason| reason.clone())
        .and_then(|evidence| evidence.restart().map_err(|error| error.to_string()));
    let guest = probe(trial);
    let counts = begun.and(evidence).and_then(|evidence| evidence.read().map_err(|error| error.to_string()));
    match guest {
        Err(reason) => (Verdict::Otherwise, reason, counts.ok()),
        Ok(()) => {
            let (verdict, found) = judge(trial, counts.as_ref().map_err(String::as_str));
            (verdict, found, counts.ok())
        }
    }
}

/// Counts without what is 0 or absent.
fn shortened(counts: &Counts) -> String {
    let text = counts.to_string();
    let kept = text.lines().take_while(|line| !line.is_empty());
    kept.filter(|line| !line.ends_with(" 0") && !line.contains(" absent: "))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Runs the probe; the reason if it did not complete each request once, with the right bytes.
fn probe(trial: &Trial) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("the probe cannot be started: {error}");
    let kernel = MemFile::of(PROBE_ELF).map_err(cannot)?;
    let program = std::env::current_exe().map_err(cannot)?;
    let mut child = Command::new(program)
        .args(["run", "--memory", "128M", "--kernel"])
        .arg(kernel.path_for_child())
        .arg("--cmdline")
        .arg(format!("op=verify always_kick=1 requests={REQUESTS} {}", trial.guest))
        .arg("--disk")
        .arg(format!("backend=mem,size=1M,moderate=off,{}", trial.disk))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let ended = wait(&mut child);
    // A few lines: they fit the pipe, whoever reads them when.
    let (mut said, mut errors) = (String::new(), String::new());
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut said));
    let _ = child.stderr.take().map(|mut out| out.read_to_string(&mut errors));
    match ended {
        false => Err(format!("the guest did not end within {} s", DEADLINE.as_secs())),
        true if said.contains(r#""event":"end","ok":true"#) => Ok(()),
        true => {
            let last = errors.lines().last().or_else(|| said.lines().last()).unwrap_or("it said nothing");
            Err(format!("the guest did not complete each request once: {}", last.replace('|', "/")))
        }
    }
}

/// Waits for the end, and brings it about at the deadline: then `false`.
fn wait(child: &mut Child) -> bool {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            ended => return ended.is_ok(),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
