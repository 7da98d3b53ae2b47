use std::fs::File;
use std::io::{Read, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::{Kind, Stream};

/// Returns one stream of each kind, each with a reader that does not read.
fn stuck() -> Vec<(Stream, File)> {
    let (pipe_reader, pipe_writer) = pipe().unwrap();
    let (polled_reader, polled_writer) = pipe().unwrap();
    let (far, near) = UnixStream::pair().unwrap();
    let polled = Stream { kind: Kind::Polled(4096), ..Stream::new(polled_writer.as_fd()).unwrap() };
    vec![
        (Stream::new(pipe_writer.as_fd()).unwrap(), File::from(OwnedFd::from(pipe_reader))),
        (polled, File::from(OwnedFd::from(polled_reader))),
        (Stream::new(near.as_fd()).unwrap(), File::from(OwnedFd::from(far))),
    ]
}

#[test]
fn nothing_waits_for_a_reader_that_sleeps_and_no_byte_is_lost_or_moved() {
    for (stream, mut reader) in stuck() {
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        stream.push(&sent);
        assert!(!stream.flush(), "{:?}: a pipe or a socket cannot hold a million bytes", stream.kind);
        let mut seen = vec![0; sent.len()];
        let mut at = 0;
        while at < seen.len() {
            at += reader.read(&mut seen[at..]).unwrap();
            stream.flush();
        }
        assert!(seen == sent && stream.is_empty() && stream.take_error().is_none());
    }
}

#[test]
fn the_shared_description_stays_blocking() {
    let (_reader, writer) = pipe().unwrap();
    let stream = Stream::new(writer.as_fd()).unwrap();
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    drop(stream);
}

#[test]
fn an_error_is_told_once_and_a_reader_that_left_costs_no_memory() {
    for (stream, reader) in stuck() {
        drop(reader);
        stream.push(b"lost");
        assert!(stream.flush());
        assert_eq!(stream.take_error().and_then(|e| e.raw_os_error()), Some(libc::EPIPE));
        stream.push(&[0; 4096]);
        assert!(stream.is_empty() && stream.take_error().is_none());
    }
    let full = Stream::new(File::options().write(true).open("/dev/full").unwrap().as_fd()).unwrap();
    for _ in 0..2 {
        full.push(b"lost");
        assert!(full.flush());
    }
    assert_eq!(full.take_error().and_then(|e| e.raw_os_error()), Some(libc::ENOSPC));
    assert!(full.take_error().is_none());
}

#[test]
fn many_threads_may_push_at_once() {
    let (mut reader, writer) = pipe().unwrap();
    let stream = Stream::new(writer.as_fd()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    stream.push(b"0123456789\n");
                    stream.flush();
                }
            });
        }
        let mut seen = vec![0; 4 * 1000 * 11];
        reader.read_exact(&mut seen).unwrap();
        assert!(seen.chunks(11).all(|line| line == b"0123456789\n"));
    });
}
