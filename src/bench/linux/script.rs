//! The job archive that the guest's init runs (guest-images/linux/README.md).

use std::fmt::Write;

use super::archive::Cpio;
use super::fio_job::FioJob;
use super::marker::{BEGIN, END, STARTED, value};
use super::variant::Variant;
use crate::bench::{Schedule, Step};
use crate::machine::layout;

/// The serial number of disk `n`, which also names its files.
pub fn serial(n: usize) -> String {
    format!("bench{n}")
}

/// The shell function of our guests and of those in reference VMMs. Each defines `mark` in its own way.
///
/// Interrupts are read outside the marks, so that only fio runs between them. A row's guest interrupts therefore include
/// those during fio's start.
pub const MEASURE: &str = r#"
# measure JOB PREFIX BEGIN END: runs fio between two marks; its output, and /proc/interrupts before and after it, become files
# whose names begin with PREFIX
measure() {
    cat /proc/interrupts >"$2before"
    mark "$3"
    fio --eta=never --output-format=json+ --output="$2json" "$1"
    status=$?
    mark "$4" "$status"
    cat /proc/interrupts >"$2after"
}
"#;

/// The other shell functions; after them, the script has one `step` per line.
const FUNCTIONS: &str = r#"
mark() { devmem "$MARKER" 32 "$1" || exit 1; }

# disk_behind SLOT BDF: prints the disk of the PCI device in SLOT of bus 0, once it is there; BDF is its address on the host
disk_behind() {
    deadline=$(($(cut -d. -f1 /proc/uptime) + 20))
    while :; do
        for block in /sys/block/*; do
            case $(readlink -f "$block") in
            */0000:00:$1.0/*)
                echo "/dev/${block##*/}"
                return
                ;;
            esac
        done
        if [ "$(cut -d. -f1 /proc/uptime)" -ge "$deadline" ]; then
            echo "$2 shows no disk in the guest: it is not a disk, or the guest has no driver for it" >&2
            return 1
        fi
        sleep 0.1
    done
}

# irqs_of SLOT: its interrupts' numbers in /proc/interrupts
irqs_of() {
    device=/sys/bus/pci/devices/0000:00:$1.0
    if [ -d "$device/msi_irqs" ]; then ls "$device/msi_irqs"; else cat "$device/irq"; fi | tr '\n' ' '
}

# step NUMBER DISK JOB BEGIN END: BEGIN and END are the values of its marks. A step that fails is lost; one of the first round
# ends the run, because it would fail in every round
step() {
    [ "$(devmem "$MARKER" 32)" = 0x00000001 ] || exit 0
    DISK=$(cat "$2")
    export DISK
    measure "$3" "$OUT/$1." "$4" "$5"
    if [ "$status" -ne 0 ]; then
        echo "step $1: fio ended with status $status: $(head -c 500 "$OUT/$1.json")"
        rm -f "$OUT/$1.json"
        [ "$1" -ge "$FIRST_ROUND" ] || exit 1
    fi
}
"#;

/// The guest's `/job` directory.
pub fn archive(
    schedule: &Schedule<FioJob, Variant>,
    block_size: u64,
    runtime_s: f64,
    warm_up_s: f64,
) -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.directory("job");
    cpio.file("job/run", 0o755, run(schedule, runtime_s).as_bytes());
    add_jobs(&mut cpio, &schedule.jobs, block_size, runtime_s, warm_up_s);
    cpio.finish()
}

/// Adds fio's job files, by their places in `jobs`, and one to warm up with.
pub fn add_jobs(cpio: &mut Cpio, jobs: &[FioJob], block_size: u64, runtime_s: f64, warm_up_s: f64) {
    for (n, job) in jobs.iter().enumerate() {
        cpio.file(&format!("job/{n}.fio"), 0o644, job.file(block_size, runtime_s).as_bytes());
    }
    // A job file may do anything for any time, so it does not warm up.
    let warm_up = jobs.first().filter(|job| job.seconds(warm_up_s) == Some(warm_up_s)).cloned();
    if let Some(job) = warm_up.or_else(|| "rand-read-1".parse().ok()) {
        cpio.file("job/warm-up.fio", 0o644, job.file(block_size, warm_up_s).as_bytes());
    }
}

/// The slot on the guest's PCI bus of variant `n`, a passed-through device. Our disks come first, then the disk for
/// results, then these devices.
pub fn slot(schedule: &Schedule<FioJob, Variant>, n: usize) -> Option<u8> {
    let passed = schedule.paths.get(n)?.passed().is_some();
    passed.then(|| u8::try_from(n + 2).ok()).flatten()
}

fn run(schedule: &Schedule<FioJob, Variant>, runtime_s: f64) -> String {
    let first_round = schedule.jobs.len() * schedule.paths.len();
    let mut script = format!(
        "#!/bin/sh\n# Made by doorbell bench.\nMARKER={:#x}\nFIRST_ROUND={first_round}\nexport RUNTIME={:.0}\n{MEASURE}{FUNCTIONS}\n",
        layout::EMBEDDER_START,
        runtime_s.ceil()
    );
    let mut line = |text: std::fmt::Arguments| _ = writeln!(script, "{text}");
    line(format_args!("mark {:#x}", value(STARTED, BEGIN)));
    line(format_args!("uname -r >$OUT/kernel"));
    let ours = |n: &usize| !matches!(schedule.paths[*n], Variant::Peer(_));
    for n in (0..schedule.paths.len()).filter(ours) {
        let serial = serial(n);
        if let (Some(slot), Some(spec)) = (slot(schedule, n), schedule.paths[n].passed()) {
            line(format_args!("disk_behind {slot:02x} {} >{serial} || exit 1", spec.bdf));
            line(format_args!("echo irqs $(irqs_of {slot:02x}) >$OUT/{serial}"));
            continue;
        }
        line(format_args!("disk_by_serial {serial} >{serial} || exit 1"));
        line(format_args!("device=$(readlink -f /sys/block/$(basename $(cat {serial}))/device)"));
        line(format_args!("basename $device >$OUT/{serial}"));
    }
    for n in (0..schedule.paths.len()).filter(ours) {
        line(format_args!(
            "DISK=$(cat {}) fio --eta=never --output=/dev/null warm-up.fio || exit 1",
            serial(n)
        ));
    }
    for (number, Step { job, path, .. }) in schedule.steps().into_iter().enumerate() {
        if !ours(&path) {
            continue;
        }
        let disk = serial(path);
        let (begin, end) = (value(number as u16, BEGIN), value(number as u16, END));
        line(format_args!("step {number} {disk} {job}.fio {begin:#x} {end:#x}"));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::PathPair;
    use crate::dataplane::{CompletePath, Moderation};
    use crate::virtio::NotifyPath;

    fn schedule() -> Schedule<FioJob, Variant> {
        let path = |complete| Variant::Disk(PathPair { notify: NotifyPath::Mmio, complete }, Moderation::Off);
        Schedule {
            jobs: ["rand-read-1", "seq-write-32"].iter().map(|job| job.parse().unwrap()).collect(),
            paths: vec![path(CompletePath::Irqfd), path(CompletePath::SignalMsi)],
            rounds: 2,
        }
    }

    #[test]
    fn every_step_is_a_line_with_its_marks() {
        let script = run(&schedule(), 2.0);
        let steps: Vec<_> = script.lines().filter(|l| l.starts_with("step ")).collect();
        assert_eq!(steps.len(), 8);
        assert_eq!(steps[0], "step 0 bench0 0.fio 0x10000 0x20000");
        assert_eq!(steps[5], "step 5 bench0 0.fio 0x10005 0x20005");
    }

    #[test]
    fn a_passed_through_disk_is_found_by_its_slot_behind_the_disk_for_results() {
        let mut schedule = schedule();
        assert_eq!(slot(&schedule, 1), None);
        schedule.paths.push(Variant::Passed("01:00.0".parse().unwrap()));
        assert_eq!(slot(&schedule, 2), Some(4));
        let script = run(&schedule, 2.0);
        let steps = script.lines().filter(|l| l.starts_with("step ") && l.contains(" bench2 ")).count();
        assert!(
            steps == 4 && script.contains("\ndisk_behind 04 0000:01:00.0 >bench2 || exit 1\n"),
            "{script}"
        );
    }

    #[test]
    fn the_script_is_shell() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        let mut schedule = schedule();
        schedule.paths.push(Variant::Passed("01:00.0".parse().unwrap()));
        sh.stdin.take().unwrap().write_all(run(&schedule, 2.0).as_bytes()).unwrap();
        assert!(sh.wait().unwrap().success());
    }

    #[test]
    fn the_archive_has_the_script_and_every_job() {
        let archive = archive(&schedule(), 4096, 2.0, 0.5);
        let has = |text: &str| archive.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has("job/run\0") && has("job/1.fio\0") && has("runtime=2000ms") && has("runtime=500ms"));
    }
}
