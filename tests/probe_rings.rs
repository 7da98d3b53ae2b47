//! Both rings under fire: the probe guest in `doorbell run`, on every notify x complete pair. A request counts only
//! if it completed exactly once, with its own data, after an interrupt where one was asked for. Skipped with one line
//! where /dev/kvm is not usable. `PROBE_REQUESTS` sets the requests per pair (default 100000).

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use doorbell::bench::PROBE_ELF;
use serde_json::Value;

use probe_block::assert_block;

const NOTIFY: [&str; 4] = ["fast-mmio", "mmio", "pio", "exit"];
const MESSAGES: [&str; 3] = ["auto", "irqfd", "signal-msi"];
const LEVELS: [&str; 2] = ["irq-line", "resample"];

#[path = "common/probe_block.rs"]
mod probe_block;

#[path = "probe_rings/packed.rs"]
mod packed;

/// One machine at a time: the tests are many, the CPUs few.
static ONE: Mutex<()> = Mutex::new(());

fn requests() -> u64 {
    std::env::var("PROBE_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

fn usable_kvm() -> bool {
    let usable = kvm_ioctls::Kvm::new();
    if let Err(e) = &usable {
        eprintln!("skipped: /dev/kvm: {e}");
    }
    usable.is_ok()
}

fn image() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(PROBE_ELF).unwrap();
    file
}

/// The guest's lines, up to its last one.
fn lines(mut command: Command) -> Vec<Value> {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(lines.last().map(|l| &l["event"]), Some(&"end".into()), "{text}\n{errors}");
    lines
}

fn doorbell(disk: &str, cpus: u32, orders: &str) -> Vec<Value> {
    doorbell_with(&[], disk, cpus, orders)
}

/// The same with more arguments of `doorbell run`.
fn doorbell_with(arguments: &[&str], disk: &str, cpus: u32, orders: &str) -> Vec<Value> {
    let image = image();
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "300", env!("CARGO_BIN_EXE_doorbell"), "run", "--memory", "128M", "--kernel"]);
    command.arg(image.path()).args(arguments).args([
        "--cpus",
        &cpus.to_string(),
        "--disk",
        disk,
        "--cmdline",
    ]);
    command.arg(format!("tsc_khz=2000000 gap_us=0 deadline_ms=60000 cpus={cpus} {orders}"));
    command.stdin(std::process::Stdio::null());
    lines(command)
}

/// Every block did all its requests, exactly once, without a wrong byte.
fn assert_blocks(what: &str, lines: &[Value], blocks: usize, requests: u64) {
    let found: Vec<_> = lines.iter().filter(|line| line["event"] == "block").collect();
    assert_eq!(found.len(), blocks, "{what}");
    found.into_iter().for_each(|block| assert_block(what, block, requests));
    assert_eq!(lines.last().unwrap()["ok"], true, "{what}");
}

/// `total` requests over four depths: a fiftieth at each of the first two, where a request waits for a kick and an interrupt of its
/// own and takes the longest, and the others where many requests share them.
fn assert_pair(disk: &str, total: u64, orders: &str) {
    for (depths, n) in [("1,7", total / 50), ("64,256", total / 50 * 24)] {
        let lines = doorbell(disk, 1, &format!("{orders} depth={depths} requests={n}"));
        assert_blocks(&format!("{disk} {orders}"), &lines, 2, n);
    }
}

#[test]
fn every_message_pair_completes_each_request_once() {
    if !usable_kvm() {
        return;
    }
    for notify in NOTIFY {
        for complete in MESSAGES {
            let disk = format!("backend=mem,size=64M,notify={notify},complete={complete}");
            assert_pair(&disk, requests(), "op=verify");
        }
    }
}

/// As Linux submits under an application. Masks, moves and resets (a SETUP before each block) fall into holds.
#[test]
fn held_interrupts_lose_and_double_nothing() {
    if !usable_kvm() {
        return;
    }
    for (moderate, n) in [("auto", requests()), ("off", 4000), ("4:200", 4000), ("64:50", 4000)] {
        for complete in ["irqfd", "signal-msi"] {
            let disk = format!("backend=mem,size=64M,complete={complete},moderate={moderate}");
            assert_pair(&disk, n, "op=verify one_by_one=1");
            let orders = "op=verify one_by_one=1 event_idx=0 depth=1,64 requests=1000";
            assert_blocks(&disk, &doorbell(&disk, 1, orders), 2, 1000);
            let orders = "op=verify one_by_one=1 depth=1,16 requests=1000 mask_every=5 hold_us=60 route_every=3 vector2=0x90";
            assert_blocks(&disk, &doorbell(&disk, 1, orders), 2, 1000);
        }
    }
    let disk = "backend=mem,size=64M,moderate=auto";
    let orders = "op=verify one_by_one=1 wait=halt depth=1,32 requests=5000";
    assert_blocks(disk, &doorbell(disk, 1, orders), 2, 5000);
}

/// VIRTIO_F_RING_PACKED in the features of a `setup` line.
fn is_packed(lines: &[Value]) -> bool {
    let setup = lines.iter().find(|line| line["event"] == "setup").unwrap();
    let text = setup["features"].as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(text, 16).unwrap() >> 34 & 1 == 1
}

/// A kick of 32 bits is caught by its length, or by length 0; one of 16 bits, which the driver must not send then, is caught by
/// length 0 only, and exits to the VMM otherwise: nothing is lost, it costs an exit each.
#[test]
fn kicks_with_data_are_caught_by_length_and_wrong_ones_come_by_exit() {
    if !usable_kvm() {
        return;
    }
    for (notify, wrong_exits) in [("fast-mmio", false), ("mmio", true), ("pio", true)] {
        for short in [0, 1] {
            let stats = tempfile::NamedTempFile::new().unwrap();
            let disk = format!("backend=mem,size=64M,notify={notify},notification-data=on,moderate=off");
            let args = ["--stats", stats.path().to_str().unwrap()];
            let orders = format!("op=verify depth=1 requests=500 short_kick={short}");
            let lines = doorbell_with(&args, &disk, 1, &orders);
            assert_blocks(&disk, &lines, 1, 500);
            let stats: Value = serde_json::from_slice(&std::fs::read(stats.path()).unwrap()).unwrap();
            let queue = &stats["disks"][0]["queues"][0];
            let (by_exit, by_ioeventfd) =
                (queue["kicks_exit"].as_u64().unwrap(), queue["kicks_ioeventfd"].as_u64().unwrap());
            let block = lines.iter().find(|line| line["event"] == "block").unwrap();
            let made = block["kicks"].as_u64().unwrap();
            // A thread that is still awake needs no kick: the guest made one for each other request, and each came, in one way.
            assert_eq!(made + block["kicks_suppressed"].as_u64().unwrap(), 500, "{notify} {short}: {block}");
            let expected = if wrong_exits && short == 1 { (made, 0) } else { (0, made) };
            assert_eq!((by_exit, by_ioeventfd), expected, "{notify} {short}: {queue}");
        }
    }
}

/// The queue alone is reset before each block, and has half the entries afterwards.
#[test]
fn a_queue_that_was_reset_alone_completes_every_request() {
    if !usable_kvm() {
        return;
    }
    for complete in ["irqfd", "signal-msi", "irq-line"] {
        let disk = format!("backend=mem,size=64M,queues=2,complete={complete}");
        let irq = if complete == "irq-line" { "intx" } else { "msix" };
        let orders = format!("op=verify queues=2 depth=1,8 requests=1000 reset_queue=1 rounds=2 irq={irq}");
        assert_blocks(&disk, &doorbell(&disk, 1, &orders), 4, 1000);
    }
}

/// Doorbells and registers follow the BAR, away and back.
#[test]
fn a_bar_that_moves_under_a_live_driver_takes_its_doorbells_along() {
    if !usable_kvm() {
        return;
    }
    for notify in ["fast-mmio", "mmio", "exit"] {
        let disk = format!("backend=mem,size=64M,queues=2,notify={notify}");
        let orders = "op=verify queues=2 depth=1,8 requests=500 rounds=3 move_bar=1 mask_every=50";
        assert_blocks(&disk, &doorbell(&disk, 1, orders), 6, 500);
    }
}

#[test]
fn data_written_through_each_backend_is_read_back() {
    if !usable_kvm() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    for backend in ["mem,size=64M", "sync", "io_uring"] {
        if backend == "io_uring"
            && let Err(why) = doorbell::host::io_uring_available()
        {
            eprintln!("skipped: io_uring: {why}");
            continue;
        }
        let path = if backend.starts_with("mem") {
            String::new()
        } else {
            format!(",path={}", file.path().display())
        };
        let disk = format!("backend={backend}{path}");
        let lines = doorbell(&disk, 1, "op=verify size=4096 depth=1,64 requests=3000");
        assert_blocks(&disk, &lines, 2, 3000);
    }
}

#[test]
fn masking_and_moving_a_vector_under_load_loses_nothing() {
    if !usable_kvm() {
        return;
    }
    for complete in MESSAGES {
        let disk = format!("backend=mem,size=64M,complete={complete}");
        // The second vector and, on two CPUs, the other CPU: address and data both change.
        let orders = "op=verify depth=1,16 requests=2000 mask_every=5 hold_us=60 route_every=3 vector2=0x90";
        assert_blocks(&disk, &doorbell(&disk, 1, orders), 2, 2000);
        let orders =
            "queues=1 op=verify depth=1,16 requests=2000 mask_every=7 hold_us=60 route_every=2 cpu2=1";
        assert_blocks(&disk, &doorbell(&disk, 2, orders), 2, 2000);
    }
}

#[test]
fn level_interrupts_complete_each_request_once_masked_or_not() {
    if !usable_kvm() {
        return;
    }
    for notify in NOTIFY {
        for complete in LEVELS {
            let disk = format!("backend=mem,size=64M,notify={notify},complete={complete}");
            assert_pair(&disk, requests(), "irq=intx op=verify");
            let lines = doorbell(&disk, 1, "irq=intx op=verify wait=halt depth=1,64 requests=1000");
            assert_blocks(&disk, &lines, 2, 1000);
            let lines = doorbell(&disk, 1, "irq=intx op=verify depth=1,16 requests=1000 mask_every=5");
            assert_blocks(&disk, &lines, 2, 1000);
        }
    }
}

#[test]
fn a_halted_cpu_always_wakes() {
    if !usable_kvm() {
        return;
    }
    for complete in MESSAGES {
        let disk = format!("backend=null,size=64M,complete={complete}");
        let lines = doorbell(&disk, 1, "wait=halt depth=1,7 requests=5000");
        assert_blocks(&disk, &lines, 2, 5000);
    }
}

#[test]
fn two_cpus_on_two_queues_keep_apart() {
    if !usable_kvm() {
        return;
    }
    for event_idx in [0, 1] {
        let disk = "backend=mem,size=64M,queues=2";
        let orders = format!("op=verify wait=spin,halt,poll depth=1,16 requests=2000 event_idx={event_idx}");
        assert_blocks(disk, &doorbell(disk, 2, &orders), 12, 2000);
    }
}

#[test]
fn malformed_requests_are_answered_and_the_device_comes_back() {
    if !usable_kvm() {
        return;
    }
    let split = doorbell("backend=mem,size=64M", 1, "mode=hostile attack=0,1,2,3,4,0");
    let packed = doorbell("backend=mem,size=64M,ring=packed", 1, "mode=hostile packed=1 attack=0,2,0");
    assert!(is_packed(&packed));
    let attacks: Vec<_> = split.iter().chain(&packed).filter(|line| line["event"] == "hostile").collect();
    assert_eq!(attacks.len(), 9);
    for attack in attacks {
        let answer = attack["answer"].as_u64().unwrap();
        use doorbell::bench::probe_abi::answer::*;
        assert!(answer & (REFUSED | NEEDS_RESET) != 0 && answer & RECOVERED != 0, "{attack}");
    }
}

#[test]
fn the_same_image_runs_in_qemu() {
    let (qemu, firmware) = ("/usr/bin/qemu-system-x86_64", "/usr/share/qemu/qboot.rom");
    if !Path::new(qemu).exists() || !Path::new(firmware).exists() {
        eprintln!("skipped: {qemu} with {firmware} is not installed");
        return;
    }
    let image = image();
    let mut command = Command::new("timeout");
    command.args([
        "-k", "2", "60", qemu, "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "64", "-bios",
    ]);
    command.args([firmware, "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel"]);
    command.arg(image.path());
    command.args(["-append", "requests=300 depth=1,32 wait=spin,halt,poll"]);
    command.args(["-blockdev", "driver=null-co,node-name=n0,size=67108864", "-object", "iothread,id=io0"]);
    command.args(["-device", "virtio-blk-pci,drive=n0,iothread=io0"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    assert_blocks("QEMU", &lines(command), 6, 300);
}
