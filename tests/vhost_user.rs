//! Disks whose queues another process runs, against a backend that is not ours: QEMU's storage daemon. The probe guest drives
//! them. Skipped with one line where /dev/kvm or the daemon is missing.

#[path = "common/probe_block.rs"]
mod probe_block;
#[path = "common/refusal.rs"]
mod refusal;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use doorbell::bench::PROBE_ELF;
use probe_block::assert_block;
use refusal::tells;
use serde_json::Value;
use tempfile::TempDir;

const DAEMON: &str = "qemu-storage-daemon";

/// A directory with the probe, a disk of 64 MiB and the place of the socket.
struct Place(TempDir);

/// The daemon; killed (SIGKILL) when it is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    /// `None`: what the tests need is missing, which is said.
    fn new() -> Option<Place> {
        if let Err(error) = kvm_ioctls::Kvm::new() {
            println!("skipped: /dev/kvm: {error}");
            return None;
        }
        if Command::new(DAEMON).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: no {DAEMON} (Debian: qemu-system-common)");
            return None;
        }
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::write(place.path("probe"), PROBE_ELF).unwrap();
        std::fs::File::create(place.path("disk")).unwrap().set_len(64 << 20).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn daemon(&self) -> Daemon {
        let file = format!("driver=file,node-name=file,filename={}", self.path("disk").display());
        let socket = self.path("socket");
        let _ = std::fs::remove_file(&socket);
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=file,addr.type=unix,addr.path={},writable=on,num-queues=2",
            socket.display()
        );
        let daemon = Command::new(DAEMON).args(["--blockdev", &file, "--export", &export]).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        // It listens at once when the socket is there.
        while !socket.exists() {
            assert!(Instant::now() < end, "{DAEMON} makes no socket");
            std::thread::yield_now();
        }
        Daemon(daemon)
    }

    fn doorbell(&self, disk: &str, orders: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args([
            "-k",
            "2",
            "200",
            env!("CARGO_BIN_EXE_doorbell"),
            "run",
            "--memory",
            "128M",
            "--kernel",
        ]);
        command.arg(self.path("probe")).arg("--stats").arg(self.path("stats"));
        command.args(["--disk", &format!("vhost-user={}{disk}", self.path("socket").display()), "--cmdline"]);
        command.arg(format!("tsc_khz=2000000 gap_us=0 {orders}")).stdin(Stdio::null());
        command
    }

    /// The interrupts that our side sent for queue 0.
    fn interrupts(&self) -> Value {
        let stats: Value = serde_json::from_slice(&std::fs::read(self.path("stats")).unwrap()).unwrap();
        stats["disks"][0]["queues"][0]["interrupts"].clone()
    }
}

fn blocks(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let blocks: Vec<Value> = lines.filter(|line| line["event"] == "block").collect();
    assert!(!blocks.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    blocks
}

/// Every block did all its requests once, with the right bytes.
fn assert_blocks(what: &str, output: &Output, count: usize, requests: u64) {
    let blocks = blocks(output);
    assert_eq!(blocks.len(), count, "{what}");
    blocks.iter().for_each(|block| assert_block(what, block, requests));
}

#[test]
fn every_path_completes_each_request_once_and_irqfd_without_us() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.daemon();
    for (complete, ours) in [
        ("auto", ""),
        ("irqfd", ""),
        ("signal-msi", "signal_msi"),
        ("irq-line", "intx"),
        ("resample", "intx"),
    ] {
        let irq = if ours == "intx" { "intx" } else { "msix" };
        for notify in ["fast-mmio", "mmio", "pio", "exit"] {
            let disk = format!(",notify={notify},complete={complete}");
            let orders = format!("op=verify depth=1,7,64,256 requests=2000 irq={irq} deadline_ms=60000");
            let output = place.doorbell(&disk, &orders).output().unwrap();
            assert_blocks(&disk, &output, 4, 2000);
            let interrupts = place.interrupts();
            for (path, sent) in interrupts.as_object().unwrap() {
                // Our relay sent them where it must; else the backend's write went to the irqfd and we sent none.
                assert_eq!(sent.as_u64().unwrap() >= 2000, path == ours, "{disk}: {path} in {interrupts}");
            }
        }
    }
}

#[test]
fn masks_and_moves_of_the_vector_lose_nothing() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.daemon();
    for complete in ["irqfd", "signal-msi"] {
        let disk = format!(",complete={complete}");
        let orders = "op=verify depth=1,16 requests=2000 mask_every=5 hold_us=60 route_every=3 vector2=0x90 deadline_ms=60000";
        assert_blocks(&disk, &place.doorbell(&disk, orders).output().unwrap(), 2, 2000);
        let orders = "op=verify depth=1,16 queues=2 requests=1000 reset_queue=1 deadline_ms=60000";
        let disk = format!("{disk},queues=2");
        assert_blocks(&disk, &place.doorbell(&disk, orders).output().unwrap(), 2, 1000);
    }
}

#[test]
fn a_killed_backend_is_reported_and_a_new_one_continues() {
    let Some(place) = Place::new() else { return };
    let daemon = place.daemon();
    let orders = "op=verify depth=8 requests=100000 reset_queue=1 rounds=2 deadline_ms=3000";
    let mut run = place.doorbell("", orders).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"event\":\"setup\"")));
    // Until it moves data, so that requests are in flight when it is killed.
    let moved = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", daemon.0.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap()
    };
    let end = Instant::now() + Duration::from_secs(60);
    while moved() < 1 << 20 {
        assert!(Instant::now() < end, "no data moves");
        std::thread::yield_now();
    }
    drop(daemon);
    let _daemon = place.daemon();
    let rest: Vec<String> = lines.collect();
    let mut said = String::new();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    run.wait().unwrap();
    let statuses: Vec<Value> = rest
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "block")
        .map(|block| block["status"].clone())
        .collect();
    // What was in flight timed out; after the queue's reset the backend that came back runs it.
    assert_eq!(statuses, [1, 0], "{rest:?}\n{said}");
    assert!(said.contains("the vhost-user backend is gone"), "{said}");
}

/// The probe resets the machine at its end: the next one connects again.
#[test]
fn a_machine_that_starts_again_connects_again() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.daemon();
    let mut command = place.doorbell("", "op=verify depth=8 requests=1000 deadline_ms=60000");
    command.args(["--on-reset", "restart"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);
    let blocks = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    for block in blocks.filter(|line| line["event"] == "block").take(3) {
        assert_block("after a restart", &block, 1000);
    }
    // timeout(1) passes it on.
    // SAFETY: no pointers; the process is ours and not waited for.
    assert_eq!(unsafe { libc::kill(run.id() as i32, libc::SIGTERM) }, 0);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.matches("starting it again").count() >= 2, "{said}");
}

fn refused(disk: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command
        .args(["run", "--memory", "128M", "--kernel"])
        .arg(probe())
        .args(["--disk", disk])
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn probe() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vhost-user-probe");
    std::fs::write(&path, PROBE_ELF).unwrap();
    path
}

#[test]
fn a_backend_that_is_none_is_one_sentence() {
    if let Err(error) = kvm_ioctls::Kvm::new() {
        return println!("skipped: /dev/kvm: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let disk = |name: &str| format!("vhost-user={}", at(name).display());
    tells(&refused(&disk("nothing")), 4, &["cannot connect", "start the backend first"]);
    std::fs::write(at("file"), "").unwrap();
    tells(&refused(&disk("file")), 4, &["cannot connect"]);
    drop(UnixListener::bind(at("gone")).unwrap());
    tells(&refused(&disk("gone")), 4, &["cannot connect", "start the backend again"]);
    for key in ["path=/x", "iothread=0", "backend=sync", "moderate=off", "direct", "serial=x"] {
        let text = format!("{},{key}", disk("nothing"));
        tells(&refused(&text), 2, &["has no effect with vhost-user", "leave it out"]);
    }
    // Silent, closing at once, and garbage of some kinds.
    let headers: [&[u8]; 4] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        // GET_FEATURES' reply, without VERSION_1; then one of another request; then one whose size is a lie.
        &[1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0],
        &[1, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ];
    for (n, reply) in headers.into_iter().enumerate() {
        let name = format!("bad{n}");
        let listener = UnixListener::bind(at(&name)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            let _ = stream.write_all(reply);
        });
        tells(&refused(&disk(&name)), 4, &["vhost-user backend", &name]);
        server.join().unwrap();
    }
    let listener = UnixListener::bind(at("silent")).unwrap();
    tells(&refused(&disk("silent")), 4, &["GET_FEATURES", "no reply in time"]);
    drop(listener);
}
