//! A guest that moves our BAR, turns decoding off and on, masks and unmasks, and takes CPUs away, while fio writes and
//! verifies: no request is lost, and no kick goes by exit that should have been an ioeventfd.
//!
//! A lost kick or interrupt shows as a run past its deadline: virtio-blk waits for ever.

use crate::need_machine;
use crate::support::guest::{Guest, Outcome};

/// Shell functions for poking at our devices. The driver stays bound unless a test unbinds it.
const POKE: &str = r#"
# function_of DISK: its directory below /sys/bus/pci/devices.
function_of() { readlink -f "/sys/block/${1#/dev/}/device/.."; }
# config_read FUNCTION OFFSET BYTES: as one hexadecimal number.
config_read() { dd if="$1/config" bs=1 skip=$(($2)) count="$3" 2>/dev/null | od -An -tx"$3" | tr -d ' '; }
# config_write FUNCTION OFFSET BYTES VALUE
config_write() {
    printf "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($4 & 255)) $(($4 >> 8 & 255)) $(($4 >> 16 & 255)) $(($4 >> 24 & 255)))" |
        dd of="$1/config" bs="$3" count=1 seek=$(($2 / $3)) conv=notrunc 2>/dev/null
}
# load DISK SERIAL: fio in the background, writing and verifying the whole disk again and again until /tmp/stop is there.
load() {
    (
        rounds=0
        while :; do
            fio --output=$OUT/fio.$2 --name=load --filename=$1 --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=16 \
                --verify=crc32c --verify_fatal=1 --verify_dump=0 --do_verify=1 --size=4m || exit 1
            rounds=$((rounds + 1))
            if [ -e /tmp/stop ]; then break; fi
        done
        echo $rounds >$OUT/rounds.$2
    ) &
}
# finish SERIAL...: waits for the load of each; it must have verified the disk at least once.
finish() {
    touch /tmp/stop
    wait
    for s in "$@"; do [ "$(cat $OUT/rounds.$s)" -ge 1 ]; done
    ! dmesg | grep -E 'I/O error|nobody cared|soft lockup|hung task|BUG'
}
"#;

fn guest(script: &str) -> Guest {
    Guest::new(format!("{POKE}\n{script}")).deadline(60)
}

/// All requests were answered well, and no doorbell missed a kick.
fn nothing_lost(outcome: &Outcome, serials: &[&str]) {
    for serial in serials {
        let stats = outcome.stats.disk(serial);
        assert_eq!(stats.sum("errors"), 0, "{serial}\n{outcome}");
        assert_eq!(stats.sum("kicks_missed"), 0, "{serial}\n{outcome}");
        assert_eq!(stats.sum("interrupts/no_vector"), 0, "{serial}\n{outcome}");
        assert!(stats.0["last_error"].is_null(), "{serial}\n{outcome}");
    }
}

#[test]
fn doorbells_follow_a_bar_that_linux_moves() {
    need_machine!();
    // Linux finds places of its own for a function that comes back on a bus scan, after it has measured the BARs again.
    let script = r#"
        for s in fast mmio pio; do
            f=$(function_of $(disk_by_serial $s))
            old=$(config_read $f 0x10 8)
            echo 1 >$f/remove
            echo 1 >/sys/bus/pci/rescan
            disk=$(disk_by_serial $s)
            f=$(function_of $disk)
            new=$(config_read $f 0x10 8)
            echo "$s: BAR 0 from $old to $new"
            [ $old != $new ]
            head -n 1 $f/resource | grep -q $(printf '^0x%016x' $((0x$new & ~15)))
            load $disk $s
            finish $s
            rm /tmp/stop
        done"#;
    let outcome = guest(script)
        .disk("serial=fast,backend=mem,size=8M,notify=fast-mmio,complete=irqfd")
        .disk("serial=mmio,backend=mem,size=8M,notify=mmio,complete=signal-msi")
        .disk("serial=pio,backend=mem,size=8M,notify=pio,complete=irqfd")
        .run();
    nothing_lost(&outcome, &["fast", "mmio", "pio"]);
    for serial in ["fast", "mmio", "pio"] {
        // The driver was quiet while it moved: not one kick has a reason to come by exit.
        assert_eq!(outcome.stats.disk(serial).sum("kicks_exit"), 0, "{serial}\n{outcome}");
    }
    println!("{}", outcome.text("log").trim_end());
}

#[test]
fn nothing_is_lost_while_bars_move_and_decoding_goes_off_and_on_under_load() {
    need_machine!();
    // Away and back, since the driver goes on writing to the old place.
    let script = r#"
        for s in fast mmio pio; do
            disk=$(disk_by_serial $s)
            export F_$s=$(function_of $disk)
            load $disk $s
        done
        moves=0
        while [ $moves -lt 10 ]; do
            for f in $F_fast $F_mmio $F_pio; do
                command=0x$(config_read $f 4 2) bar=0x$(config_read $f 0x10 4)
                config_write $f 4 2 $((command & ~3))
                config_write $f 4 2 $command
                config_write $f 0x10 4 $((bar + 0x8000000))
                config_write $f 0x10 4 $bar
            done
            port=0x$(config_read $F_pio 0x18 4)
            config_write $F_pio 0x18 4 $((port + 0x800))
            config_write $F_pio 0x18 4 $port
            moves=$((moves + 1))
        done
        finish fast mmio pio
        echo $moves >$OUT/moves"#;
    let outcome = guest(script)
        .disk("serial=fast,backend=mem,size=8M,notify=fast-mmio,complete=irqfd")
        .disk("serial=mmio,backend=mem,size=8M,notify=mmio,complete=signal-msi")
        .disk("serial=pio,backend=mem,size=8M,notify=pio,complete=irqfd")
        .run();
    nothing_lost(&outcome, &["fast", "mmio", "pio"]);
}

#[test]
fn nothing_is_lost_while_vectors_are_masked_and_unmasked_under_load() {
    need_machine!();
    // Vector 1 is the queue's: its mask bit is in dword 3 of its entry; the table is at 0x4000 of BAR 0, the pending bits
    // at 0x3000. The function's mask is bit 14 of message control, 2 bytes into the capability.
    let script = r#"
        msix_of() {
            at=$((0x$(config_read $1 0x34 1)))
            while [ $at -ne 0 ]; do
                if [ $(config_read $1 $at 1) = 11 ]; then echo $at; return; fi
                at=$((0x$(config_read $1 $((at + 1)) 1)))
            done
            return 1
        }
        for s in irqfd msi; do
            disk=$(disk_by_serial $s)
            f=$(function_of $disk)
            export F_$s=$f B_$s=$((0x$(config_read $f 0x10 4) & ~15)) C_$s=$(($(msix_of $f) + 2))
            load $disk $s
        done
        times=0 seen_irqfd=0 seen_msi=0
        while [ $times -lt 40 ]; do
            for s in irqfd msi; do
                eval "f=\$F_$s b=\$B_$s c=\$C_$s"
                devmem $((b + 0x4000 + 16 + 12)) 32 1
                pending=$(devmem $((b + 0x3000)) 32)
                if [ $((pending & 2)) -ne 0 ]; then eval "seen_$s=\$((seen_$s + 1))"; fi
                devmem $((b + 0x4000 + 16 + 12)) 32 0
                control=0x$(config_read $f $c 2)
                config_write $f $c 2 $((control | 0x4000))
                config_write $f $c 2 $control
            done
            times=$((times + 1))
        done
        finish irqfd msi
        echo "masked $times times each; pending bit seen: irqfd $seen_irqfd, signal-msi $seen_msi"
        [ $seen_irqfd -gt 0 ]
        [ $seen_msi -gt 0 ]"#;
    let outcome = guest(script)
        .cmdline("iomem=relaxed") // Linux keeps user space out of a driver's BAR otherwise
        .disk("serial=irqfd,backend=mem,size=8M,complete=irqfd")
        .disk("serial=msi,backend=mem,size=8M,complete=signal-msi")
        .run();
    nothing_lost(&outcome, &["irqfd", "msi"]);
    assert!(outcome.stats.disk("msi").sum("interrupts/pending") > 0, "never masked while it rang\n{outcome}");
    println!("{}", outcome.text("log").trim_end());
}

#[test]
fn smp_nothing_is_lost_while_cpus_go_and_managed_vectors_move() {
    need_machine!();
    // virtio-blk's vectors are managed: user space cannot move them, taking away the CPU that they are on does.
    let script = r#"
        vectors() { for i in $(sed -n 's/^ *\([0-9]*\):.*virtio[0-9]*-req.*/\1/p' /proc/interrupts); do echo "$i $(cat /proc/irq/$i/effective_affinity_list)"; done; }
        for s in one four msi; do load $(disk_by_serial $s) $s; done
        moved=0
        for round in 1 2; do
            for cpu in 1 2 3; do
                vectors >/tmp/before
                echo 0 >/sys/devices/system/cpu/cpu$cpu/online
                vectors >/tmp/after
                n=$(awk -v c=$cpu 'NR == FNR { at[$1] = $2; next } at[$1] == c && $2 != c { n++ } END { print n + 0 }' /tmp/before /tmp/after)
                moved=$((moved + n))
                echo 1 >/sys/devices/system/cpu/cpu$cpu/online
            done
        done
        [ $(nproc) -eq 4 ]
        finish one four msi
        echo "vectors moved off a CPU that went: $moved"
        [ $moved -gt 0 ]"#;
    let outcome = guest(script)
        .cpus(4)
        .deadline(90)
        .disk("serial=one,backend=mem,size=8M,queues=1,complete=irqfd")
        .disk("serial=four,backend=mem,size=8M,queues=4,complete=irqfd")
        .disk("serial=msi,backend=mem,size=8M,queues=2,complete=signal-msi")
        .run();
    nothing_lost(&outcome, &["one", "four", "msi"]);
    println!("{}", outcome.text("log").trim_end());
}
