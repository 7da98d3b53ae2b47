//! Posted interrupts: a record of what KVM does with each completion, with APICv and without. Started by `scripts/posted`, in a
//! lab of its own that has APICv and two CPUs; not among the tests, for that machine is not stable enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorbell::host::ProcInterrupts;
use doorbell::observe::kernel::KernelEvidence;

use crate::need_intel;
use crate::probe;

/// Requests of the two runs of each setting; what differs between the runs is what that many more requests cost.
const FEW: u64 = 20;
const MANY: u64 = 120;
const MORE: u64 = MANY - FEW;

/// Notifications (IPIs of POSTED_INTR_VECTOR): which function sends them depends on the APIC's mode.
const NOTIFICATIONS: [&str; 2] = ["flat_send_IPI_mask(0xf2)", "default_send_IPI_mask_sequence_phys(0xf2)"];

const NAMES: [&str; 12] = [
    "kvm:kvm_exit",
    "kvm:kvm_userspace_exit",
    "irqfd_wakeup",
    "kvm_send_userspace_msi",
    "vmx_deliver_interrupt",
    "kvm:kvm_apicv_accept_irq",
    "kvm_vcpu_kick",
    "kvm_vcpu_wake_up",
    "handle_apic_eoi_induced",
    "irqfd_resampler_ack",
    NOTIFICATIONS[0],
    NOTIFICATIONS[1],
];

struct Setting {
    what: &'static str,
    disk: &'static str,
    guest: &'static str,
}

const SETTINGS: [Setting; 5] = [
    Setting { what: "irqfd, the vCPU runs", disk: "complete=irqfd", guest: "wait=spin" },
    Setting { what: "KVM_SIGNAL_MSI, the vCPU runs", disk: "complete=signal-msi", guest: "wait=spin" },
    Setting { what: "irqfd, the vCPU is halted", disk: "complete=irqfd", guest: "wait=halt" },
    Setting { what: "KVM_SIGNAL_MSI, the vCPU is halted", disk: "complete=signal-msi", guest: "wait=halt" },
    Setting {
        what: "INTx with resample, the vCPU runs",
        disk: "complete=resample",
        guest: "wait=spin irq=intx",
    },
];

/// What [`MORE`] requests made the kernel do.
struct Cost {
    counts: Vec<(&'static str, u64)>,
    /// Notifications that a handler of the host took, and reschedule IPIs.
    pin: u64,
    res: u64,
}

impl Cost {
    fn get(&self, name: &str) -> u64 {
        self.counts.iter().find(|(counted, _)| *counted == name).expect("one of the names").1
    }

    fn notifications(&self) -> u64 {
        NOTIFICATIONS.iter().map(|name| self.get(name)).sum()
    }
}

/// All settings, on kvm_intel as it is loaded.
fn costs() -> [Cost; SETTINGS.len()] {
    // Armed once: that takes longer than a run.
    let evidence = KernelEvidence::counts_only(&NAMES).expect("the lab's kernel can be traced");
    SETTINGS.each_ref().map(|setting| {
        let [few, many] = [FEW, MANY].map(|requests| once(&evidence, setting, requests));
        let counts = few.counts.iter().zip(&many.counts);
        Cost {
            counts: counts.map(|((name, few), (_, many))| (*name, many.saturating_sub(*few))).collect(),
            pin: many.pin.saturating_sub(few.pin),
            res: many.res.saturating_sub(few.res),
        }
    })
}

fn once(evidence: &KernelEvidence, setting: &Setting, requests: u64) -> Cost {
    let (host, before) = (ProcInterrupts::now().expect("/proc/interrupts"), counts(evidence));
    // Each on a CPU of its own: a vCPU that its own I/O thread keeps from running is told nothing.
    let orders = format!("requests={requests} {}", setting.guest);
    probe::guest_with(setting.disk, &orders, &["--pin", "vcpu0=0,iothread0=1"]);
    let after = counts(evidence);
    let host = ProcInterrupts::now().expect("/proc/interrupts").since(&host);
    // For people who wait for it, and to see how far it came.
    eprintln!("{}: {requests} requests done", setting.what);
    let line = |label| host.get(label).unwrap_or(0);
    let counts = NAMES.iter().enumerate().map(|(n, name)| (*name, after[n] - before[n])).collect();
    Cost { counts, pin: line("PIN"), res: line("RES") }
}

fn counts(evidence: &KernelEvidence) -> [u64; NAMES.len()] {
    let counts = evidence.read().expect("tracefs can be read");
    NAMES.map(|name| counts.get(name).unwrap_or(0))
}

/// Loads kvm_intel anew; whether it then runs with APICv.
fn load(apicv: bool) -> bool {
    let run = |command: &str| {
        let status = Command::new("sh").args(["-c", command]).status().expect("sh can be started");
        assert!(status.success(), "{command}: {status}");
    };
    run("rmmod kvm_intel");
    run(&format!("modprobe kvm_intel enable_apicv={}", u8::from(apicv)));
    let value = fs::read_to_string("/sys/module/kvm_intel/parameters/enable_apicv");
    value.expect("a parameter of kvm_intel").trim() == "Y"
}

/// What is recorded: for each setting the counts with APICv and without.
fn table(on: &[Cost], off: &[Cost]) -> String {
    let mut text = String::new();
    for (setting, (on, off)) in SETTINGS.iter().zip(on.iter().zip(off)) {
        text += &format!("{:<48} {:>8} {:>8}\n", setting.what, "apicv", "without");
        let mut line = |name: &str, get: &dyn Fn(&Cost) -> u64| {
            text += &format!("  {name:<46} {:>8} {:>8}\n", get(on), get(off));
        };
        for name in NAMES.iter().filter(|name| !NOTIFICATIONS.contains(name)) {
            line(name, &|cost| cost.get(name));
        }
        line("notifications: IPIs of vector 0xf2", &Cost::notifications);
        line("  of them taken by a handler of the host: PIN", &|cost| cost.pin);
        line("reschedule IPIs: RES", &|cost| cost.res);
        text += "\n";
    }
    text
}

#[test]
#[ignore = "a recorded run on a machine with APICv: scripts/posted"]
fn record() {
    need_intel!();
    assert!(Path::new("/sys/module/kvm_intel/parameters/enable_apicv").exists());
    assert!(load(true), "this CPU has no APICv: scripts/posted starts a lab that has");
    let on = costs();
    assert!(!load(false));
    let off = costs();
    // Not on the standard output: that and what fails here would be mixed up, two serial lines on one terminal.
    let out = PathBuf::from(std::env::var_os("OUT").expect("scripts/lab names where results go"));
    fs::write(out.join("posted.txt"), table(&on, &off)).expect("$OUT can be written to");
    for (setting, (on, off)) in SETTINGS.iter().zip(on.iter().zip(&off)) {
        let what = setting.what;
        assert_eq!(off.notifications() + off.get("kvm:kvm_apicv_accept_irq"), 0, "{what}");
        assert!(on.get("kvm:kvm_apicv_accept_irq") >= MORE, "{what}: each completion is posted");
        match setting.guest.contains("wait=spin") {
            true => {
                assert!(on.notifications() >= MORE * 9 / 10, "{what}: the vCPU is told of each");
                assert!(on.pin < on.notifications() / 4, "{what}: the CPU takes them in the guest");
                assert!(on.get("kvm_vcpu_kick") < MORE / 10, "{what}: nobody kicks the vCPU");
                assert!(on.get("kvm:kvm_exit") < off.get("kvm:kvm_exit"), "{what}");
            }
            false => assert!(on.notifications() < MORE / 10, "{what}: nobody tells a vCPU that does not run"),
        }
    }
}
