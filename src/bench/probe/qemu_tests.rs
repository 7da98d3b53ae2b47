use std::time::{Duration, Instant};

use super::*;

fn line(firmware: &str) -> String {
    let files = Files { ram: "/a,b".into(), kernel: "/k".into(), disk: "/d,e".into() };
    arguments(&files, 64 << 20, 1 << 20, firmware, PEER_VARIANTS.iter()).join(" ")
}

#[test]
fn every_subject_is_a_device_of_its_own() {
    let line = line("qboot.rom");
    assert_eq!(line.matches("-device virtio-blk-pci,").count(), PEER_VARIANTS.len());
    assert_eq!(line.matches("-object iothread,").count(), 4, "{line}");
    assert!(line.contains("iothread,id=io0,poll-max-ns=0 "), "{line}");
    assert!(line.contains("iothread,id=io1 "), "polls as it does by itself: {line}");
    assert!(line.contains("drive=n2,num-queues=1,queue-size=256 "), "main loop: {line}");
    assert!(line.contains("queue-size=256,ioeventfd=off "), "{line}");
    assert!(line.contains("mem-path=/a,,b,") && line.contains("filename=/d,,e,"), "{line}");
    assert!(line.contains("-bios qboot.rom"));
    assert!(!self::line("").contains("-bios"));
}

#[test]
fn rows_have_different_names() {
    let names: std::collections::HashSet<_> =
        PEER_VARIANTS.iter().map(|s| (s.notify, s.wait, s.backend)).collect();
    assert_eq!(names.len(), PEER_VARIANTS.len());
}

#[test]
fn a_refused_command_line_is_a_clause() {
    let mut process = match start(vec!["-no-such-flag".into()]) {
        Ok(process) => process,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let begun = Instant::now();
    let why = loop {
        if let Some(why) = process.ended() {
            break why;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    };
    assert!(why.contains("no-such-flag"), "{why}");
}
