//! The probe bench as a whole: every pair of rings has its row and its counts are what the path says, requests survive
//! path switches, masks and moves while they run, and a peer takes part without being left behind. Structure only: no
//! test here has a time for a result. Skipped with one line where /dev/kvm is not usable.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use doorbell::bench::probe::{PeerVmm, ProbeConfig, Session, SessionConfig, run};
use doorbell::bench::probe_abi::{GuestJob, flag, kind, op, order, status, vector, wait};
use doorbell::bench::{DiskCounts, Report, Row};
use doorbell::dataplane::CompletePath;
use doorbell::virtio::NotifyPath;
use doorbell::vm::ThreadConfig;

#[path = "common/schema.rs"]
mod schema;

const QEMU: &str = "qemu-system-x86_64";
const REQUESTS: u32 = 300;
const ROUNDS: usize = 2;

/// One machine at a time, or `None` where there is no KVM: the tests are many, the CPUs few.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    if let Err(e) = kvm_ioctls::Kvm::new() {
        eprintln!("skipped: /dev/kvm: {e}");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(|e| e.into_inner()))
}

fn config() -> ProbeConfig {
    ProbeConfig {
        rounds: ROUNDS,
        requests: REQUESTS,
        poll_us: 50,
        pin: None,
        filter: None,
        peer: None,
        self_test: false,
        sandbox: Default::default(),
        pace: Default::default(),
    }
}

fn bench(config: &ProbeConfig) -> Report {
    let mut steps = (0, 0);
    let report = run(config, &mut |done, all, _| {
        assert_eq!(done, steps.0, "progress goes step by step");
        steps = (done + 1, all);
    });
    let report = report.unwrap();
    assert_eq!(steps.0, steps.1, "and to the end");
    let schema = serde_json::from_str(include_str!("../docs/bench.schema.json")).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(schema::violations(&schema, &schema, &json, ""), Vec::<String>::new());
    report
}

/// Requests of a row: as many as asked for in each round, fewer on a path that is slow here.
fn requests(row: &Row) -> u64 {
    let block = if row.depth == Some(1) { REQUESTS } else { 2 * REQUESTS };
    let (most, rounds) = (u64::from(block) * ROUNDS as u64, ROUNDS as u64);
    let requests = row.requests.unwrap();
    assert!(0 < requests && requests <= most && requests.is_multiple_of(rounds), "{row:?}");
    requests
}

#[test]
fn every_pair_has_a_row_and_counts_what_its_path_says() {
    let Some(_turn) = turn() else { return };
    let report = bench(&config());
    let rows: Vec<_> = report.rows.iter().filter(|row| row.not_here.is_none()).collect();
    for row in &rows {
        let what = serde_json::to_string(row).unwrap();
        let requests = requests(row);
        assert_eq!(row.guest, "probe", "{what}");
        assert_eq!(row.round_iops.iter().flatten().count(), ROUNDS, "{what}");
        assert!(row.min_ns > Some(0), "{what}");
        // Percentiles that too few requests stand behind are left out: on a busy machine a slow path has few.
        assert!(row.p50_ns.is_none_or(|p50| row.min_ns <= Some(p50)), "{what}");
        assert!(row.p99_ns.is_none_or(|p99| row.p50_ns <= Some(p99)), "{what}");
        assert_eq!(row.p50_ns.is_some(), requests >= 20, "{what}");
        assert_eq!(row.p99_ns.is_some(), requests >= 1000, "{what}");
        // At depth 1 the guest waits for each interrupt. A level that is still up when the handler ends may interrupt
        // again.
        if row.depth == Some(1) {
            let level =
                ["irq-line", "resample"].map(Some).contains(&row.complete.as_deref()) && row.job != "floor";
            let more = if level { row.guest_interrupts } else { Some(requests) };
            assert!(row.guest_interrupts >= Some(requests) && row.guest_interrupts == more, "{what}");
        }
    }

    // Where the guest's counter is ours, every disk's round trip is taken apart, as the floor's is.
    let blocking = |row: &&&Row| row.job == "floor" && row.wait.as_deref() == Some("blocking");
    let one_way = |row: &Row| (row.kick_p50_ns.is_some(), row.interrupt_p50_ns.is_some());
    let agree = rows.iter().find(blocking).is_some_and(|floor| one_way(floor) == (true, true));
    for row in rows.iter().filter(|row| row.job != "floor") {
        let apart = agree && row.depth == Some(1);
        assert_eq!(one_way(row), (apart, apart), "{row:?}");
    }

    let answers = ["irqfd", "signal-msi", "irq-line", "kvm-interrupt"];
    for answer in answers {
        let floor = |row: &&Row| row.job == "floor" && row.complete.as_deref() == Some(answer);
        assert!(report.rows.iter().any(|row| floor(&row)), "no floor by {answer}");
    }

    let completes = ["irqfd", "signal-msi", "irq-line", "resample"];
    let paths = NotifyPath::NAMES
        .iter()
        .flat_map(|(notify, _)| completes.map(|complete| (*notify, complete, "split")));
    for (notify, complete, ring) in paths.chain([("fast-mmio", "irqfd", "packed")]) {
        for depth in [1, 32] {
            let this = |row: &&&Row| {
                row.notify.as_deref() == Some(notify)
                    && row.complete.as_deref() == Some(complete)
                    && row.ring.as_deref() == Some(ring)
                    && (row.backend.as_deref(), row.moderate.as_deref()) == (Some("null"), Some("off"))
                    && (row.depth, row.poll_us) == (Some(depth), Some(0))
                    && !row.job.ends_with("one-by-one")
            };
            let found: Vec<_> = rows.iter().filter(this).collect();
            assert_eq!(found.len(), 1, "{notify}+{complete} at depth {depth}");
            assert_counts(found[0], notify == "exit", complete);
        }
    }
}

fn assert_counts(row: &Row, by_exit: bool, complete: &str) {
    let what = serde_json::to_string(row).unwrap();
    let count = |count: Option<u64>| count.unwrap_or_else(|| panic!("a count is missing: {what}"));
    let (requests, interrupts) = (count(row.requests), count(row.interrupts));
    let (caught, exits) = (count(row.kicks_ioeventfd), count(row.kicks_exit));
    let kicks = caught + exits;
    assert_eq!(if by_exit { caught } else { exits }, 0, "{what}");
    assert_eq!(count(row.kicks_missed), 0, "{what}");
    assert!(0 < kicks && kicks <= requests, "{what}");
    let by = (count(row.interrupts_irqfd), count(row.interrupts_signal_msi));
    let wanted = match complete {
        "irqfd" => (interrupts, 0),
        "signal-msi" => (0, interrupts),
        _ => (0, 0),
    };
    assert_eq!(by, wanted, "{what}");
    assert!(0 < interrupts && interrupts <= requests, "{what}");
    // KVM_EXIT_MMIO or KVM_EXIT_IO for each kick; INTx reads the ISR register, which is one more.
    if by_exit {
        assert!(count(row.exits_to_user) >= exits, "{what}");
    }
    if row.depth == Some(1) {
        // A kick fewer where the I/O thread saw the next request before it slept; never an interrupt fewer.
        assert_eq!(interrupts, requests, "{what}");
        // One to wait, one to interrupt; a wait that finds nothing is rare.
        assert!(count(row.iothread_syscalls) * 100 <= requests * 205, "{what}");
    }
}

/// 100,000 requests at four depths, each with data of its own, while their vector is masked and moved by the guest and
/// their paths are switched by the host.
#[test]
fn requests_survive_masks_moves_and_path_switches() {
    const EACH: u32 = 25_000;
    let Some(_turn) = turn() else { return };
    let mut session = Session::start(SessionConfig {
        disks: vec!["backend=mem,size=64M,iothread=0".parse().unwrap()],
        threads: vec![ThreadConfig::default()],
        cpus: 1,
        ..SessionConfig::default()
    })
    .unwrap();
    let disk = session.parts().disks[0].clone();
    session
        .run(GuestJob { kind: kind::SETUP, queues: 1, vector: vector::PLAIN, ..GuestJob::default() })
        .unwrap();
    let (stop, switches) = (AtomicBool::new(false), AtomicU64::new(0));
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            let completes = [CompletePath::SignalMsi, CompletePath::Irqfd, CompletePath::Auto];
            let notifies = [NotifyPath::Exit, NotifyPath::FastMmio, NotifyPath::Mmio];
            for n in (0..3usize).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                disk.device_interrupts().set_path(completes[n]).unwrap();
                disk.set_notify_path(notifies[n]).unwrap();
                // Some requests on this pair before the next: counted, not timed.
                let from = DiskCounts::of(&disk).requests;
                while DiskCounts::of(&disk).requests < from + 50 && !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                switches.fetch_add(1, Ordering::Relaxed);
            }
        });
        let outcomes = [1, 7, 64, 256].map(|depth| {
            let job = GuestJob {
                kind: kind::IO,
                op: op::VERIFY,
                wait: wait::SPIN,
                order: order::SEQUENTIAL,
                requests: EACH,
                depth,
                size: 512,
                flags: flag::ROUTE_LIVE,
                mask_every: 97,
                route_every: 31,
                vector: vector::PLAIN,
                vector2: vector::PLAIN + 1,
                hold: 20_000,
                // On a loaded host one KVM_SET_GSI_ROUTING or KVM_IRQFD waits for seconds (SRCU, kworkers): not our stall.
                deadline: 600_000_000_000,
                ..GuestJob::default()
            };
            session.try_on(&[(0, job)])
        });
        stop.store(true, Ordering::Relaxed);
        outcomes
    });
    for outcome in outcomes {
        let outcome = outcome.unwrap().remove(0);
        assert_eq!((outcome.status, outcome.completed), (status::OK, EACH), "{outcome:?}");
        let wrong = [outcome.data_errors, outcome.io_errors, outcome.duplicates, outcome.unknown];
        assert_eq!(wrong, [0; 4], "{outcome:?}");
        assert!(outcome.masks > 0 && outcome.routes > 0, "{outcome:?}");
    }
    let counts = DiskCounts::of(&disk);
    assert!(counts.requests >= 4 * u64::from(EACH), "{counts:?}");
    assert!(switches.into_inner() > 10, "it was not switched while it ran");
    assert!(counts.irqfd > 0 && counts.signal_msi > 0 && counts.kicks_exit > 0, "{counts:?}");
    assert_eq!(counts.kicks_missed, 0, "{counts:?}");
}

fn qemu_is_installed() -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(QEMU).exists()))
}

/// Whether a process is a QEMU that has not ended.
fn is_qemu(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.contains("qemu-system") && !status.contains("State:\tZ")
}

/// QEMU processes whose parent is `parent`.
fn qemus_of(parent: u32) -> Vec<u32> {
    let parent = format!("PPid:\t{parent}");
    let child = |process: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        is_qemu(*process) && status.lines().any(|line| line == parent)
    };
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(child).collect()
}

/// Kills a bench in the middle of its measurements: the kernel takes QEMU down with it.
#[test]
fn qemu_does_not_outlive_a_killed_bench() {
    let Some(_turn) = turn() else { return };
    let mut bench = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["bench", "--peer", "qemu", "--rounds", "1000", "--progress", "off"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let peer = loop {
        let found = qemus_of(bench.id());
        // Without QEMU there is nothing to leave behind.
        if !found.is_empty() || !qemu_is_installed() || Instant::now() > until {
            break found;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    bench.kill().unwrap();
    bench.wait().unwrap();
    if !qemu_is_installed() {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return;
    }
    assert_eq!(peer.len(), 1, "the bench never started its peer");
    let until = Instant::now() + Duration::from_secs(30);
    while is_qemu(peer[0]) {
        assert!(Instant::now() < until, "QEMU, process {}, lives on", peer[0]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_self_test_has_the_same_path_twice_and_a_verdict_for_each_workload() {
    let Some(_turn) = turn() else { return };
    let report = bench(&ProbeConfig { self_test: true, ..config() });
    let rows: Vec<_> = report.rows.iter().filter(|row| row.job != "floor").collect();
    let [floor] = &report.rows.iter().filter(|row| row.job == "floor").collect::<Vec<_>>()[..] else {
        panic!("one floor: {:?}", report.rows)
    };
    assert!(floor.verdict.is_none() && floor.p50_ns.is_some(), "{floor:?}");
    assert_eq!(rows.len(), 6, "{rows:?}");
    for pair in rows.chunks(2) {
        let told = |row: &Row| {
            (row.job.clone(), row.notify.clone(), row.complete.clone(), row.backend.clone(), row.poll_us)
        };
        let again = Row { backend: Some("null".into()), ..pair[1].clone() };
        assert_eq!(pair[1].backend.as_deref(), Some("null again"));
        assert_eq!(told(pair[0]), told(&again));
        assert_eq!((pair[0].verdict.is_some(), pair[1].verdict.is_some()), (false, true), "{pair:?}");
    }
}

#[test]
fn qemu_is_measured_in_the_same_run_and_ends_with_it() {
    let Some(_turn) = turn() else { return };
    let peer = Some(PeerVmm::Qemu);
    let report = bench(&ProbeConfig { peer, filter: Some("qemu".into()), ..config() });
    assert_eq!(qemus_of(std::process::id()), Vec::<u32>::new());
    let peers: Vec<_> = report.rows.iter().filter(|row| row.peer.as_deref() == Some("qemu")).collect();
    if let Some(why) = peers.iter().find_map(|row| row.not_here.as_ref().filter(|_| row.backend.is_none())) {
        eprintln!("skipped: QEMU: {why}");
        return;
    }
    assert!(report.run.peer.is_some_and(|version| version.contains("QEMU")));
    for depth in [1, 32] {
        let measured = peers.iter().filter(|row| row.not_here.is_none() && row.depth == Some(depth));
        let waits: Vec<_> = measured
            .map(|row| {
                assert!(depth > 1 || row.guest_interrupts == Some(requests(row)), "{row:?}");
                assert_eq!((row.exits_to_user, row.kicks_exit), (None, None), "not ours to count");
                (row.wait.clone().unwrap(), row.backend.clone().unwrap())
            })
            .collect();
        for wait in ["blocking", "memory-poll", "main-loop", "exit"] {
            assert!(waits.contains(&(wait.into(), "null".into())), "{wait} in {waits:?}");
        }
        assert!(waits.contains(&("blocking".into(), "threads".into())), "{waits:?}");
    }
}
