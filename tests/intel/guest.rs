//! A Linux guest on Intel's KVM: it writes, reads and verifies through both kinds of kick, and powers off.

use doorbell::observe::kernel::Counts;

use crate::counted::{self, hits, through};
use crate::need_intel;
use crate::support::guest::{Guest, WAIT};

/// Reads of the span that is counted, one after the other.
const READS: u64 = 100;
const LEN: u64 = 2 << 20;

const VERIFY: &str = "[verify]
ioengine=libaio
direct=1
rw=randwrite
bs=8k
iodepth=8
verify=crc32c
verify_fatal=1
do_verify=1
";

#[test]
fn a_linux_guest_verifies_its_disks_and_its_kicks_take_the_path_configured() {
    need_intel!();
    let script = format!(
        "for disk in fast mmio; do
            device=$(disk_by_serial $disk)
            fio --output-format=terse --filename=$device --size={LEN} /job/verify.fio
            mark ready
            {WAIT}
            dd if=$device of=/dev/null bs=4k count={READS} iflag=direct
            mark over
            {WAIT}
        done"
    );
    let mut guest = Guest::new(script)
        .kernel("vmlinux")
        .cmdline("cryptomgr.notests mitigations=off")
        .file("verify.fio", VERIFY)
        .disk(format!("serial=fast,backend=mem,size={LEN},notify=fast-mmio"))
        .disk(format!("serial=mmio,backend=mem,size={LEN},notify=mmio"))
        .start();
    let mut spans = Vec::new();
    for _ in 0..2 {
        guest.mark("ready");
        let evidence = counted::start();
        guest.go();
        guest.mark("over");
        spans.push(evidence.stop().expect("tracefs can be read"));
        guest.go();
    }
    let outcome = guest.finish();
    for (span, disk) in spans.iter().zip(["fast", "mmio"]) {
        println!("{disk}\n{span}");
        let kicks = hits(span, "ioeventfd_write");
        assert!(kicks >= READS / 16, "{span}\n{outcome}");
        // At depth 1 each read has an interrupt of its own; the serial port has some beside.
        assert!(hits(span, "irqfd_wakeup") >= READS, "{span}");
        assert!(hits(span, "vmx_deliver_interrupt") >= READS, "{span}");
        // The first kick was long before.
        let (fast, emulated) = match disk {
            "fast" => (kicks, 0),
            _ => (0, kicks),
        };
        assert_eq!(hits(span, "kvm:kvm_fast_mmio"), fast, "{span}");
        assert_eq!(ways(span), (fast, emulated), "{span}");
        let stats = outcome.stats.disk(disk);
        let written = stats.sum("bytes_written");
        assert!(written >= LEN && stats.sum("errors") == 0, "{outcome}");
    }
}

fn ways(counts: &Counts) -> (u64, u64) {
    ["handle_ept_misconfig", "x86_emulate_instruction"]
        .map(|way| through(counts, "ioeventfd_write", way))
        .into()
}
