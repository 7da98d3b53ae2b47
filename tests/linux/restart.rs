//! A guest that reboots under `--on-reset restart` finds its disks as it left them.

use crate::need_machine;
use crate::support::guest::Guest;

#[test]
fn linux_reboots_and_finds_its_disks_as_it_left_them() {
    need_machine!();
    // Each start adds a letter to the disk. The first two end by the reset that Linux makes for reboot(2), and by SysRq.
    let script = r#"
        disk=$(disk_by_serial kept)
        starts=$(dd if=$disk bs=512 count=1 2>/dev/null | tr -d '\0')x
        printf %s $starts | dd of=$disk bs=512 conv=sync,fsync 2>/dev/null
        case $starts in
            x) reboot -f ;;
            xx) echo b >/proc/sysrq-trigger ;;
        esac
        [ $starts = xxx ]
        echo $starts >$OUT/starts"#;
    let outcome = Guest::new(script)
        .deadline(90)
        .argument("--on-reset")
        .argument("restart")
        .disk("serial=kept,backend=mem,size=1M")
        .run();
    assert_eq!(outcome.text("starts").trim(), "xxx", "{outcome}");
    assert_eq!(outcome.console.matches("@job").count(), 3, "{outcome}");
    assert_eq!(outcome.stats.disk("kept").sum("errors"), 0, "{outcome}");
}
