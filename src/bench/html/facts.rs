//! The host and the run as a table.

use super::escape;
use super::scale::time;
use crate::bench::Report;
use crate::host::Posted;

/// The facts of host and run, as a table of two columns.
pub fn table(report: &Report) -> String {
    let (host, run) = (&report.host, &report.run);
    let unknown = || "unknown".to_string();
    let yes = |value: bool| if value { "yes" } else { "no" }.to_string();
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    let posted = |fact: &Option<Posted>| fact.as_ref().map_or_else(unknown, Posted::to_string);
    let mut facts: Vec<(&str, String)> = vec![
        ("CPU", host.cpu.clone().unwrap_or_else(unknown)),
        ("CPUs for the bench", host.cpus.to_string()),
        ("Kernel", host.kernel.clone().unwrap_or_else(unknown)),
        ("KVM", host.kvm_module.clone().unwrap_or_else(unknown)),
        ("Hardware virtualization", yes(host.hardware_virtualization)),
        ("Itself a virtual machine", yes(host.virtual_machine)),
        ("Interrupts posted to a vCPU", posted(&host.posted_to_vcpu)),
        ("Interrupts posted by a device", posted(&host.posted_by_device)),
        ("Rounds", run.rounds.to_string()),
        ("vCPUs", run.vcpus.to_string()),
        ("Guest RAM", mib(run.memory_bytes)),
    ];
    let more = [
        ("Each measurement", run.runtime_s.map(|s| format!("{s} s"))),
        ("Disks", run.disk.clone()),
        ("Size of each disk", run.disk_bytes.map(mib)),
        ("Peer", run.peer.clone()),
        ("Guest's kernel", run.guest_kernel.clone()),
        ("fio", run.fio.clone()),
        ("To the guest's first instruction", run.first_instruction_ns.map(|ns| time(ns as f64))),
        ("Resident beyond guest RAM", run.resident_bytes.map(mib)),
        (
            "Interrupts of the host over the run, all of them",
            run.host_interrupts_total.map(|n| n.to_string()),
        ),
    ];
    facts.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let interrupts: Vec<_> = run
        .host_interrupts
        .iter()
        .flatten()
        .map(|line| (format!("{}: {}", line.label, line.what), line.count.to_string()))
        .collect();
    let facts = facts.iter().map(|(name, value)| (*name, value));
    let rows: String = facts
        .chain(interrupts.iter().map(|(name, value)| (name.as_str(), value)))
        .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)))
        .collect();
    format!("<div class=\"scroll\"><table class=\"facts\"><tbody>\n{rows}</tbody></table></div>\n")
}
