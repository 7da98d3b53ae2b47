use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use super::super::spec::Peer;
use super::*;
use crate::backend::BackendKind;
use crate::bench::PathPair;
use crate::dataplane::{CompletePath, Moderation};
use crate::virtio::NotifyPath;

const FIO: &str = r#"{"fio version": "fio-3.33", "jobs": [{"error": 0,
    "read": {"total_ios": 90, "runtime": 1000, "lat_ns": {"min": 10, "mean": 20.0, "N": 90, "bins": {"19": 90}}},
    "write": {"total_ios": 0, "runtime": 0, "lat_ns": {"min": 0, "mean": 0.0, "N": 0}}}]}"#;

/// A program that a VMM's guest could be: `steps` steps as the guest's script does them, then its process ends.
fn vmm(directory: &std::path::Path, steps: usize) -> Peer {
    for (name, text) in [
        ("fio.json", FIO),
        ("device", "virtio0\n"),
        ("fio.before", "           CPU0\n 24:    5   PCI-MSI   virtio0-req.0\n"),
        ("fio.after", "           CPU0\n 24:   75   PCI-MSI   virtio0-req.0\n"),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo fake 1.0; exit 0; }}\ncd {}\n\
         while [ $# -gt 0 ]; do\n\
         case $1 in --serial) console=${{2#file=}} ;; --disk) out=${{3#path=}} out=${{out%%,*}} ;; esac\nshift\ndone\n\
         exec >\"$console\"\necho @ready; sleep 1\n\
         for n in $(seq {steps}); do\necho @begin; echo noise; echo \"[1.0] a@end 0\"\n\
         tar -cf \"$out\" device fio.before fio.after fio.json; echo @ready; sleep 1\ndone\necho its last words\n",
        directory.display()
    );
    let program = directory.join("vmm");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Peer { kind: PeerKind::CloudHypervisor, program, name: "fake".into() }
}

fn schedule(peers: Vec<Peer>) -> Schedule<FioJob, Variant> {
    let path = PathPair { notify: NotifyPath::Mmio, complete: CompletePath::Irqfd };
    let ours = [Variant::Disk(path, Moderation::Off)];
    let paths = ours.into_iter().chain(peers.into_iter().map(Variant::Peer)).collect();
    Schedule { jobs: vec!["rand-read-4".parse().unwrap()], paths, rounds: 2 }
}

fn start(schedule: &Schedule<FioJob, Variant>) -> Turns {
    let vm = VmFacts {
        kernel: "vmlinux".into(),
        cmdline: "quiet".into(),
        cpus: 1,
        memory: 128 << 20,
        backend: BackendKind::Sync,
        direct: false,
        queues: 1,
        poll_us: 0,
    };
    let files = Files {
        initrd: vec![0; 3],
        directory: None,
        disk_size: 1 << 20,
        block_size: 4096,
        runtime_s: 0.1,
        warm_up_s: 0.1,
    };
    Turns::start(schedule, &vm, &files).unwrap()
}

#[test]
fn each_has_its_turn_between_the_steps_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let turns = start(&schedule(vec![vmm(dir.path(), 2)]));
    assert_eq!(turns.versions, ["fake 1.0"]);
    // Ours are 0 and 3, because the second round is the other way round.
    let told = Mutex::new(Vec::new());
    let begin = |step| told.lock().unwrap().push((step, None));
    let end = |step, requests| told.lock().unwrap().push((step, Some(requests)));
    turns.before(0, begin, end);
    turns.rest(begin, end);
    assert!(told.lock().unwrap().is_empty(), "ours has not come to its last step");
    turns.before(3, begin, end);
    turns.before(3, begin, end);
    turns.before(usize::MAX, begin, end);
    assert_eq!(told.into_inner().unwrap(), [(1, None), (1, Some(90)), (2, None), (2, Some(90))]);
    assert_eq!([0, 1, 2].map(|n| turns.ours(n)), [0, 3, 4]);
    let done = turns.finish();
    assert!(done.absent.is_empty() && done.samples.keys().eq(&[1, 2]));
    assert!(done.samples.values().all(|sample| sample.guest_interrupts == Some(70)));
}

#[test]
fn one_that_dies_loses_the_rounds_that_were_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let turns = start(&schedule(vec![vmm(dir.path(), 1)]));
    turns.before(4, |_| {}, |_, _| {});
    let done = turns.finish();
    assert!(done.absent.is_empty() && done.samples.keys().eq(&[1]), "{done:?}");
}

#[test]
fn a_vmm_that_does_not_start_has_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken = vmm(dir.path(), 0);
    std::fs::write(&broken.program, "#!/bin/sh\necho no KVM here >&2\nexit 1\n").unwrap();
    let gone = Peer { program: "/no/such".into(), ..broken.clone() };
    broken.name = "broken".into();
    let turns = start(&schedule(vec![broken, gone]));
    let ended = Mutex::new(Vec::new());
    turns.before(
        6,
        |_| panic!("it has no turn"),
        |step, requests| ended.lock().unwrap().push((step, requests)),
    );
    assert_eq!(ended.into_inner().unwrap(), [(1, 0), (2, 0), (3, 0), (4, 0)], "they are over");
    let done = turns.finish();
    assert_eq!(done.absent[&1], "it says \"no KVM here\"");
    assert_eq!(done.absent[&2], "/no/such is not installed");
}
