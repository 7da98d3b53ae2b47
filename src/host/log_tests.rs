use std::fs::File;
use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{BURST, KEPT, Log};

#[test]
fn a_source_that_says_too_much_is_cut_short_and_counted_and_others_are_not() {
    let (mut reader, writer) = pipe().unwrap();
    let log = Log::new(writer.as_fd()).unwrap();
    drop(writer);
    let start = Instant::now();
    for n in 0..1000 {
        log.warn("disk0", format_args!("failure {n}"), start);
    }
    log.warn("disk1", format_args!("failure"), start);
    log.warn("disk0", format_args!("later"), start + Duration::from_secs(2));
    log.warn("disk1", format_args!("again"), start + Duration::from_secs(3600));
    for _ in 0..BURST {
        log.warn("disk2", format_args!("fine"), start);
    }
    log.finish();
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("disk0: failure")).count(), BURST as usize);
    assert_eq!(
        lines[BURST as usize..][..4],
        [
            "doorbell: disk1: failure",
            "doorbell: disk0: 990 messages dropped",
            "doorbell: disk0: later",
            "doorbell: disk1: again",
        ]
    );
    assert_eq!(lines.iter().filter(|line| **line == "doorbell: disk2: fine").count(), BURST as usize);
    assert!(lines.len() == 2 * BURST as usize + 4, "{text}");
}

#[test]
fn dropped_messages_are_reported_at_the_end_too() {
    let (mut reader, writer) = pipe().unwrap();
    let log = Log::new(writer.as_fd()).unwrap();
    drop(writer);
    for _ in 0..BURST + 5 {
        log.warn("disk0", format_args!("failure"), Instant::now());
    }
    log.finish();
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("doorbell: disk0: 5 messages dropped\n"), "{text}");
}

#[test]
fn a_standard_error_that_is_full_or_closed_or_not_read_stops_nobody() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, closed) = pipe().unwrap();
    drop(reader);
    let (mut reader, sleeping) = pipe().unwrap();
    for log in [full.as_fd(), closed.as_fd(), sleeping.as_fd()].map(|fd| Log::new(fd).unwrap()) {
        for _ in 0..10_000 {
            log.line(&"x".repeat(99));
        }
        assert!(log.stream.len() <= KEPT + 200, "it keeps {} bytes", log.stream.len());
    }
    // A reader that begins to read gets what was kept, and the number of lines that it missed.
    let log = Log::new(sleeping.as_fd()).unwrap();
    drop(sleeping);
    for _ in 0..10_000 {
        log.line("line");
    }
    let text = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    log.finish();
    log.line("after");
    log.finish();
    drop(log);
    let text = text.join().unwrap().unwrap();
    assert!(text.contains(" messages were lost") || text.matches("line").count() == 10_000, "{}", text.len());
    assert!(text.ends_with("after\n"));
}

#[test]
fn sources_without_number_share_a_budget() {
    let (_reader, writer) = pipe().unwrap();
    let log = Log::new(writer.as_fd()).unwrap();
    for n in 0..10_000 {
        log.warn(&format!("guest-made name {n}"), format_args!("failure"), Instant::now());
    }
    assert!(log.budgets().sources.len() <= super::SOURCES + 1);
}
