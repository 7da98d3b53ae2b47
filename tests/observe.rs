//! What is seen of a live VM is what is there: the probe guest on /dev/kvm, looked at, switched and traced through its
//! control socket while it does requests. Skipped with one line where /dev/kvm is not usable.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use doorbell::bench::probe::{Session, SessionConfig};
use doorbell::bench::probe_abi::{GuestJob, kind, op, vector};
use doorbell::dataplane::{RequestTimestamps, Sent};
use doorbell::observe::control::{Client, ControlServer, InForce, Request};
use doorbell::observe::kernel::{EVIDENCE, KernelEvidence};
use doorbell::observe::trace::{Recording, Summary, Tracer, timeline};
use doorbell::observe::{VmParts, VmView};
use doorbell::vm::DiskConfig;
use doorbell::vm::ThreadConfig;

/// One machine at a time: the tests are many, the CPUs few.
static ONE: Mutex<()> = Mutex::new(());

/// A running probe with one disk that is set up, behind a control socket.
struct Vm {
    // Dropped in this order: nobody looks at a machine that is being taken apart.
    _server: ControlServer,
    session: Session,
    socket: PathBuf,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Vm {
    fn start(disk: &str) -> Option<Vm> {
        let turn = ONE.lock().unwrap_or_else(|e| e.into_inner());
        if let Err(error) = kvm_ioctls::Kvm::new() {
            eprintln!("skipped: /dev/kvm: {error}");
            return None;
        }
        let disks: Vec<DiskConfig> = vec![disk.parse().unwrap()];
        let threads = vec![ThreadConfig::default()];
        let mut session = Session::start(SessionConfig {
            disks,
            threads,
            cpus: 1,
            vcpu_pins: Vec::new(),
            ..Default::default()
        })
        .unwrap();
        session.run(GuestJob { kind: kind::SETUP, queues: 1, ..GuestJob::default() }).unwrap();
        let parts = session.parts();
        let parts = VmParts {
            disks: parts.disks.clone(),
            routes: Some(parts.routes.clone()),
            loops: parts.loops.clone(),
            ..VmParts::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control");
        let tracer = Tracer::new(&parts.disks);
        let server = ControlServer::start(&socket, parts, tracer, Arc::new(|why| panic!("{why}"))).unwrap();
        Some(Vm { _server: server, session, socket, _dir: dir, _turn: turn })
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    /// Runs requests, each of which must complete exactly once with its own data.
    fn requests(&mut self, depth: u32, requests: u32) {
        let outcome = self
            .session
            .run(GuestJob {
                kind: kind::IO,
                depth,
                requests,
                size: 512,
                op: op::VERIFY,
                ..GuestJob::default()
            })
            .unwrap();
        let wrong = [outcome.data_errors, outcome.io_errors, outcome.duplicates, outcome.unknown];
        assert_eq!((outcome.completed, wrong), (requests, [0; 4]));
    }
}

fn look(client: &mut Client, section: &str) -> VmView {
    client.ask(Request::Inspect { section: section.into() }).unwrap()
}

#[test]
fn inspect_shows_the_guests_setup() {
    let Some(mut vm) = Vm::start("backend=mem,size=1M") else { return };
    vm.requests(1, 500);
    let view = look(&mut vm.client(), "all");
    let device = vm.session.devices()[0];

    let doorbell = &view.doorbells.unwrap()[0];
    assert_eq!((doorbell.armed, doorbell.address), (true, Some(device.notify)), "where the guest found it");
    assert_eq!((doorbell.kicks_exit, doorbell.kicks_missed), (0, 0));
    assert!(doorbell.hits.unwrap() > 0, "no kick left the guest, so ioeventfds caught them");

    let vectors = view.vectors.unwrap();
    let ours = vectors.iter().find(|v| v.sources.contains(&"queue 0".into())).unwrap();
    assert_eq!((ours.msi.vector, ours.irqfd, ours.masked), (vector::PLAIN as u8, true, false));
    assert!(ours.interrupts.irqfd > 0 && ours.interrupts.signal_msi == 0, "auto, on an I/O thread");

    let routes = view.routes.unwrap();
    let route = routes.entries.iter().find(|route| Some(route.gsi) == ours.gsi).unwrap();
    assert_eq!(route.msi.as_ref(), Some(&ours.msi), "the route carries the vector's message");
    assert_eq!(route.holder.as_deref(), Some(format!("disk0 vector {}", ours.vector).as_str()));
    assert_eq!(routes.entries.iter().filter(|route| route.kind != "msi").count(), 40);

    let queue = &view.queues.unwrap()[0];
    // A verified request is a write and a read.
    assert!(queue.running && queue.in_flight == 0 && queue.counts.requests >= 500, "{queue:?}");
    assert_eq!(Some(queue.next_avail), queue.driver_avail, "all that was made available was taken");

    let threads = view.threads.unwrap();
    let owner = threads.iter().find(|thread| thread.owns == ["disk0 queue 0"]).unwrap();
    assert_eq!((owner.name.as_str(), owner.waits.is_some()), ("iothread0", true));
    assert!(threads.iter().any(|thread| thread.name == "vcpu0"));
}

#[test]
fn paths_switched_under_load_lose_and_double_nothing_while_two_others_look() {
    let Some(mut vm) = Vm::start("backend=mem,size=1M") else { return };
    let done = AtomicBool::new(false);
    let socket = vm.socket.clone();
    std::thread::scope(|scope| {
        let switching = scope.spawn(|| {
            let mut client = Client::connect(&socket).unwrap();
            let mut turn = 0;
            for _ in 0..10 {
                for notify in ["exit", "mmio", "fast-mmio"] {
                    for complete in ["signal-msi", "irqfd", "auto"] {
                        let (notify, complete) = (Some(notify.to_string()), Some(complete.to_string()));
                        // An interrupt that is held while the setting changes must not be lost either.
                        let moderate = Some(["auto", "off", "8:500"][turn % 3].to_string());
                        turn += 1;
                        let request = Request::Switch { disk: "disk0".into(), notify, complete, moderate };
                        client.ask::<InForce>(request).unwrap();
                    }
                }
            }
            done.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = Client::connect(&socket).unwrap();
                while !done.load(Ordering::Acquire) {
                    assert_eq!(look(&mut client, "all").doorbells.unwrap().len(), 1);
                }
            });
        }
        // Blocks until the switcher is through, so that every switch falls under load.
        while !switching.is_finished() {
            vm.requests(1, 200);
            vm.requests(32, 1000);
        }
    });
    let view = look(&mut vm.client(), "all");
    let sent = &view.vectors.unwrap().iter().fold((0, 0), |sum, v| {
        (sum.0 + v.interrupts.irqfd, sum.1 + v.interrupts.signal_msi + v.interrupts.pending)
    });
    let doorbell = &view.doorbells.unwrap()[0];
    assert!(
        sent.0 > 0 && sent.1 > 0 && doorbell.hits > Some(0) && doorbell.kicks_exit > 0,
        "all paths were used"
    );
    assert_eq!(doorbell.kicks_missed, 0);
}

fn in_order(s: &RequestTimestamps) -> bool {
    let ends = [s.seen, s.taken, s.parsed, s.submitted, s.completed, s.ending, s.published];
    ends.is_sorted() && s.seen > 0 && (s.signalled == 0 || s.signalled >= s.published)
}

/// What the Chrome trace event format asks of each kind of event.
fn is_an_event(event: &serde_json::Value) {
    let has = |keys: &[&str]| assert!(keys.iter().all(|key| event.get(key).is_some()), "{event}");
    has(&["ph", "pid", "tid", "name"]);
    match event["ph"].as_str().unwrap() {
        "M" => assert!(event["args"]["name"].is_string()),
        "X" => assert!(event["ts"].is_number() && event["dur"].as_f64() >= Some(0.0), "{event}"),
        "b" | "e" => has(&["ts", "cat", "id2"]),
        "s" | "f" => has(&["ts", "cat", "id"]),
        other => panic!("unknown phase {other}"),
    }
}

#[test]
fn a_trace_of_n_requests_has_n_whole_flows_with_stamps_in_order() {
    let Some(mut vm) = Vm::start("backend=mem,size=1M") else { return };
    // Before: the last batch of the set-up must not be in the trace.
    vm.requests(1, 10);
    let mut client = vm.client();
    assert!(client.ask::<bool>(Request::TraceStart { capacity: 100_000 }).unwrap());
    let before = look(&mut client, "queues").queues.unwrap()[0].counts.requests;
    vm.requests(8, 2000);
    let after = look(&mut client, "queues").queues.unwrap()[0].counts.requests;
    // The guest sees a completion before the batch is filed: the next request comes after that.
    vm.requests(1, 1);
    let recording: Recording = client.ask(Request::TraceStop).unwrap();
    let requests: Vec<_> = recording.queues[0].requests.iter().map(|row| row.timestamps()).collect();
    assert!(requests.len() as u64 >= after - before && recording.queues[0].dropped == 0);
    assert!(requests.iter().all(in_order));
    assert!(requests.windows(2).all(|pair| pair[0].published <= pair[1].published));
    let timeline = timeline(&recording);
    let events = timeline["traceEvents"].as_array().unwrap();
    events.iter().for_each(is_an_event);
    // From each arrow's beginning one leads to its end, and the other way round.
    let ends = |phase: &str| -> Vec<u64> {
        let mut ids: Vec<_> =
            events.iter().filter(|e| e["ph"] == phase).map(|e| e["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!((ends("s").len(), ends("s")), (requests.len(), ends("f")));
    let summary = Summary::of(&recording);
    assert_eq!(summary.requests, requests.len() as u64);
    assert!(summary.stages.iter().all(|stage| stage.min_ns <= stage.p50_ns && stage.p50_ns <= stage.max_ns));
}

/// The kernel's own count of the path that was configured. Whole host: others may add, nobody takes away.
#[test]
fn kernel_functions_are_those_of_the_path() {
    let Some(mut vm) = Vm::start("backend=mem,size=1M,complete=irqfd") else { return };
    let evidence = match KernelEvidence::start(EVIDENCE) {
        Ok(evidence) => evidence,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let counts = |vm: &Vm| {
        let view = look(&mut vm.client(), "all");
        let vectors = view.vectors.unwrap();
        let add = |sum: (u64, u64), sent: &Sent| (sum.0 + sent.irqfd, sum.1 + sent.signal_msi);
        let sum = vectors.iter().fold((0, 0), |sum, vector| add(sum, &vector.interrupts));
        (view.doorbells.unwrap()[0].hits.unwrap(), sum.0, sum.1)
    };
    if evidence.read().unwrap().get("irqfd_wakeup").is_none() {
        return eprintln!("skipped: {evidence} can be counted on this kernel, irqfd_wakeup not among them");
    }
    let (hits, irqfd, _) = counts(&vm);
    vm.requests(1, 1000);
    let (hits, irqfd) = (counts(&vm).0 - hits, counts(&vm).1 - irqfd);
    let kernel = evidence.read().unwrap();
    // Fewer kicks than requests, if the I/O thread was still looking at the ring.
    assert!(kernel.get("ioeventfd_write").unwrap() >= hits && hits > 0, "{kernel}");
    assert!(kernel.get("irqfd_wakeup").unwrap() >= irqfd && irqfd > 0, "{kernel}");
    assert!(kernel.stacks.iter().any(|tree| tree.function == "irqfd_wakeup"), "{kernel}");
    let before = kernel.get("kvm_send_userspace_msi").unwrap();
    let request = Request::Switch {
        disk: "disk0".into(),
        notify: None,
        complete: Some("signal-msi".into()),
        moderate: None,
    };
    vm.client().ask::<InForce>(request).unwrap();
    let sent = counts(&vm).2;
    vm.requests(1, 1000);
    let sent = counts(&vm).2 - sent;
    let kernel = evidence.stop().unwrap();
    assert!(kernel.get("kvm_send_userspace_msi").unwrap() >= before + sent && sent > 0, "{kernel}");
}

/// In the lab the program is elsewhere.
fn program() -> std::ffi::OsString {
    std::env::var_os("DOORBELL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_doorbell").into())
}

fn doorbell(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, word: &str) {
    let output = doorbell(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("doorbell: ") && text.contains(word) && text.lines().count() == 1, "{text}");
}

#[test]
fn mistakes_are_one_sentence_and_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (missing, dead) = (path("missing"), path("dead"));
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for verb in ["inspect", "trace"] {
        fails(&[verb, &missing], 4, "--control");
        fails(&[verb, &dead], 4, "has ended");
        fails(&[verb, dir.path().to_str().unwrap()], 4, "is not a socket");
    }
    fails(&["ctl", &missing, "disk0", "complete=irqfd"], 4, "--control");
    fails(&["ctl", &dead, "disk0", "speed=high"], 2, "notify=PATH");
    fails(&["ctl", &dead, "disk0", "notify=mmio", "notify=exit"], 2, "twice");
    fails(&["inspect", &dead, "everything"], 2, "routes");
    fails(&["trace", &dead, "--for", "ever"], 2, "seconds");
    fails(&["trace", &dead, "--evidence"], 4, "has ended");
    fails(&["trace", &dead, "--out", &path("no/such/dir")], 4, "--out");
    let kernel = path("kernel");
    std::fs::write(&kernel, doorbell::bench::PROBE_ELF).unwrap();
    let precious = path("precious");
    std::fs::write(&precious, "precious").unwrap();
    if kvm_ioctls::Kvm::new().is_ok() {
        fails(
            &["run", "--kernel", &kernel, "--console", "off", "--control", &precious],
            4,
            "another file has this name",
        );
        assert_eq!(std::fs::read(Path::new(&precious)).unwrap(), b"precious");
    }
}

#[test]
fn commands_reach_a_live_vm_and_a_refusal_is_a_sentence_too() {
    let Some(mut vm) = Vm::start("backend=mem,size=1M") else { return };
    vm.requests(4, 100);
    let socket = vm.socket.to_str().unwrap().to_string();
    let text = |arguments: &[&str]| {
        let output = doorbell(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(text(&["ctl", &socket, "disk0"]), "disk0: notify=fast-mmio complete=auto moderate=auto\n");
    let switched = text(&["ctl", &socket, "disk0", "complete=signal-msi", "notify=exit"]);
    assert_eq!(switched, "disk0: notify=exit complete=signal-msi moderate=auto\n");
    let view: VmView = serde_json::from_str(&text(&["inspect", &socket, "doorbells", "--json"])).unwrap();
    assert!(!view.doorbells.unwrap()[0].armed && view.routes.is_none());
    assert!(text(&["inspect", &socket]).contains("vector 64 (0x40) to CPU 0, fixed"));
    let out = vm.socket.with_file_name("timeline.json");
    let table = text(&["trace", &socket, "--for", "0", "--out", out.to_str().unwrap()]);
    assert!(table.contains("requests recorded"), "{table}");
    let timeline: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(timeline["otherData"]["schema"], "doorbell-trace/1");
    fails(&["ctl", &socket, "disk0", "complete=fast"], 2, "signal-msi");
    fails(&["ctl", &socket, "disk7"], 2, "disk0");
    fails(&["ctl", &socket, "disk0", "notify=pio"], 2, "pio");
    let mut tracing = vm.client();
    assert!(tracing.ask::<bool>(Request::TraceStart { capacity: 1 }).unwrap());
    fails(&["trace", &socket], 4, "already");
}
