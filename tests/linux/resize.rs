//! Disks that change their size under a guest, and disks with the logical blocks that were asked for.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::need_machine;
use crate::support::guest::{Guest, WAIT, path};
use crate::support::{disks, ground};

fn resize(socket: &Path, disk: &str, more: &[&str]) -> String {
    let mut ctl = Command::new(ground::doorbell());
    let output = ctl.arg("ctl").arg(socket).args([disk, "resize"]).args(more).output().expect("ctl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn linux_sees_a_disk_grow_and_shrink() {
    need_machine!();
    let files = disks::directory();
    let (image, socket) = (files.path().join("image"), files.path().join("control"));
    disks::file(&image, 8 << 20);
    let size = |bytes: u64| {
        File::options().write(true).open(&image).and_then(|file| file.set_len(bytes)).expect("truncate")
    };
    // The size is polled: it changes in the handler of the configuration interrupt.
    let script = format!(
        r#"
        disk=$(disk_by_serial grows)
        size=/sys/block/${{disk#/dev/}}/size
        becomes() {{ until [ $(cat $size) -eq $1 ]; do sleep 0.1; done; }}
        # Behind the end dd reads nothing, and succeeds.
        at() {{ [ $(dd if=$disk bs=512 count=1 skip=$1 2>/dev/null | wc -c) -eq 512 ]; }}
        becomes 16384
        mark ready
        {WAIT}
        becomes 32768
        at 32767
        mark grown
        {WAIT}
        becomes 2048
        at 2047
        if at 2048; then exit 1; fi
        mark cut
        {WAIT}
        becomes 1024
        ! at 1024"#
    );
    let guest = Guest::new(script)
        .argument("--control")
        .argument(socket.display().to_string())
        .disk(format!("serial=grows,{}", path(&image)));
    let mut guest = guest.start();
    guest.mark("ready");
    size(16 << 20);
    assert_eq!(resize(&socket, "disk1", &[]), "disk1: 16777216 bytes (before: 8388608)\n");
    guest.go();
    guest.mark("grown");
    size(1 << 20);
    resize(&socket, "disk1", &[]);
    guest.go();
    guest.mark("cut");
    resize(&socket, "disk1", &["size=512K"]);
    guest.go();
    let outcome = guest.finish();
    assert_eq!(outcome.stats.disk("grows").sum("errors"), 0, "Linux knows the end itself\n{outcome}");
}

#[test]
fn linux_sees_the_logical_blocks_that_were_asked_for() {
    need_machine!();
    let script = r#"
        for n in 512 4096; do
            disk=$(disk_by_serial b$n)
            queue=/sys/block/${disk#/dev/}/queue
            [ $(cat $queue/logical_block_size) -eq $n ]
            [ $(cat $queue/physical_block_size) -ge $n ]
            fio --output=$OUT/fio.$n --name=verify --filename=$disk --ioengine=libaio --direct=1 --rw=randwrite --bs=$n --size=1m \
                --verify=crc32c --verify_fatal=1
            mkfs.ext4 -q $disk
        done
        ! fio --name=small --filename=$(disk_by_serial b4096) --direct=1 --rw=read --bs=512 --size=4k >/dev/null 2>&1"#;
    let outcome = Guest::new(script)
        .disk("serial=b512,backend=mem,size=8M,block-size=512")
        .disk("serial=b4096,backend=mem,size=8M,block-size=4096")
        .run();
    for serial in ["b512", "b4096"] {
        assert_eq!(outcome.stats.disk(serial).sum("errors"), 0, "{outcome}");
    }
}
