//! What the guest was told is stored is there after `kill -9` of the VMM; and a full host is the guest's I/O error, not
//! the VMM's end.

use std::process::Command;

use crate::need_machine;
use crate::support::disks;
use crate::support::guest::{Guest, WAIT, path};

#[test]
fn synced_data_survive_kill_9_with_io_uring() {
    need_machine!();
    survive("io_uring", "sync");
}

#[test]
fn synced_data_survive_kill_9_with_sync() {
    need_machine!();
    survive("sync", "io_uring");
}

/// `data`'s backend has a file system, synced, then written to without a sync; the other one's disk is write-through.
fn survive(data: &str, through: &str) {
    let files = disks::directory();
    let [data_file, through_file] = ["data", "through"].map(|name| files.path().join(name));
    disks::file(&data_file, 64 << 20);
    disks::file(&through_file, 16 << 20);
    let with_disks = |guest: Guest| {
        guest
            .disk(format!("serial=data,backend={data},{}", path(&data_file)))
            .disk(format!("serial=through,backend={through},{}", path(&through_file)))
    };

    let writes = r#"
        data=$(disk_by_serial data) through=$(disk_by_serial through)
        mkfs.ext4 -q $data
        mkdir /mnt
        mount $data /mnt
        cp -r /lib /sbin /mnt
        (cd /mnt && find lib sbin -type f | sort | xargs sha256sum >sums)
        sync
        mark synced $(wc -l </mnt/sums)
        (while :; do cp -r /lib /mnt/again; rm -r /mnt/again; done) 2>/dev/null &
        cache=/sys/block/${through#/dev/}/queue/write_cache
        echo "write through" >/sys/block/${through#/dev/}/cache_type
        grep -q 'write through' $cache
        n=0
        while :; do
            yes "block $n" | head -c 4096 | dd of=$through bs=4k seek=$n oflag=direct conv=notrunc 2>/dev/null
            mark wrote $n
            n=$((n + 1))
        done"#;
    let mut guest = with_disks(Guest::new(writes)).start();
    let synced: u32 = guest.mark("synced").parse().expect("a number of files");
    let mut wrote = 0;
    while wrote < 25 {
        wrote = guest.mark("wrote").parse().expect("a block's number");
    }
    let killed = guest.kill();
    // It may have come further than what was read here.
    let wrote = killed
        .console
        .lines()
        .filter_map(|line| line.strip_prefix("@wrote ")?.parse().ok())
        .max()
        .unwrap_or(wrote);

    let reads = format!(
        r#"
        data=$(disk_by_serial data) through=$(disk_by_serial through)
        # The journal is replayed; after that a full check finds nothing to do.
        e2fsck -p $data || [ $? -eq 1 ]
        e2fsck -fn $data
        mkdir /mnt
        mount -o ro $data /mnt
        [ $(wc -l </mnt/sums) -eq {synced} ]
        (cd /mnt && sha256sum -c sums >/tmp/sums) || {{ grep -v OK /tmp/sums; exit 1; }}
        for n in $(seq 0 {wrote}); do
            yes "block $n" | head -c 4096 >/tmp/block
            dd if=$through bs=4k skip=$n count=1 2>/dev/null | cmp - /tmp/block
        done"#
    );
    with_disks(Guest::new(reads)).run();
    println!("{synced} synced files and {} write-through blocks were there", wrote + 1);
}

/// A file system of a few MiB, mounted here; `None` if that is not allowed.
struct SmallHost(tempfile::TempDir);

impl SmallHost {
    fn new(mib: u32) -> Option<SmallHost> {
        let directory = disks::directory();
        let size = format!("size={mib}M");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        mount.is_ok_and(|done| done.status.success()).then_some(SmallHost(directory))
    }

    fn grow(&self, mib: u32) {
        let size = format!("remount,size={mib}M");
        let done = Command::new("mount").args(["-o", &size]).arg(self.0.path()).status();
        assert!(done.is_ok_and(|done| done.success()), "cannot remount a tmpfs");
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_host_is_an_io_error_of_the_guest_and_the_vmm_lives() {
    need_machine!();
    let Some(host) = SmallHost::new(8) else { return println!("skipped: mounting a tmpfs needs root") };
    let script = format!(
        r#"
        for s in io_uring sync; do
            disk=$(disk_by_serial $s)
            if dd if=/dev/urandom of=$disk bs=64k oflag=direct 2>$OUT/error.$s; then exit 1; fi
            grep -qE 'Input/output error|I/O error' $OUT/error.$s
            # What there is can be read; other disks work.
            dd if=$disk of=/dev/null bs=64k iflag=direct
            dd if=/dev/zero of=$(disk_by_serial other) bs=64k count=16 oflag=direct
        done
        mark full
        {WAIT}
        # There is room again: no device was given up.
        for s in io_uring sync; do
            dd if=/dev/urandom of=/tmp/data bs=64k count=64
            dd if=/tmp/data of=$(disk_by_serial $s) bs=64k oflag=direct seek=32
            dd if=$(disk_by_serial $s) bs=64k count=64 skip=32 iflag=direct | cmp - /tmp/data
        done"#
    );
    let mut guest = Guest::new(script).disk("serial=other,backend=mem,size=4M");
    for backend in ["io_uring", "sync"] {
        let file = host.0.path().join(backend);
        disks::file(&file, 16 << 20);
        guest = guest.disk(format!("serial={backend},backend={backend},{}", path(&file)));
    }
    let mut guest = guest.start();
    guest.mark("full");
    host.grow(64);
    guest.go();
    let outcome = guest.finish();
    for backend in ["io_uring", "sync"] {
        assert!(outcome.stats.disk(backend).sum("errors") > 0, "{outcome}");
    }
    assert_eq!(outcome.stats.disk("other").sum("errors"), 0, "{outcome}");
}
