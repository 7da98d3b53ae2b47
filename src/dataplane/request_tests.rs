use super::super::testing::Driver;
use super::*;

fn iov(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// Parses a request of header, `readable` and `writable` (whose last byte is the status).
fn run(head: [u8; 16], readable: &mut [u8], writable: &mut [u8], block: &BlockParams) -> Todo {
    let mut head = head;
    let mut chain = Chain { head: 0, readable: vec![iov(&mut head)], writable: vec![iov(writable)] };
    if !readable.is_empty() {
        chain.readable.push(iov(readable));
    }
    parse(&mut chain, block).unwrap().todo
}

fn answer(todo: Todo) -> Status {
    match todo {
        Todo::Answer(status) => status,
        Todo::Backend(request) => panic!("went to the backend: {request:?}"),
    }
}

#[test]
fn header_and_status_are_found_however_the_buffers_are_cut() {
    let mut head = header(VIRTIO_BLK_T_IN, 7);
    let (a, b) = head.split_at_mut(5);
    let mut data = [0u8; 513];
    let (c, d) = data.split_at_mut(100);
    let mut chain = Chain { head: 0, readable: vec![iov(a), iov(b)], writable: vec![iov(c), iov(d)] };
    let parsed = parse(&mut chain, &Driver::block()).unwrap();
    let Todo::Backend(request) = parsed.todo else { panic!("{parsed:?}") };
    assert_eq!((request.op, request.offset, request.len), (Op::Read, 7 * 512, 512));
    assert_eq!(request.buffers.iter().map(|b| b.iov_len).collect::<Vec<_>>(), [100, 412]);
    assert_eq!(parsed.status, &raw mut data[512]);
    assert_eq!(parsed.written, 513);
}

#[test]
fn a_request_without_room_for_header_or_status_breaks_the_ring() {
    let (mut short, mut status) = ([0u8; 15], [0u8; 1]);
    let mut chain = Chain { head: 0, readable: vec![iov(&mut short)], writable: vec![iov(&mut status)] };
    assert_eq!(parse(&mut chain, &Driver::block()).unwrap_err(), RingError::Shape);
    let mut head = header(VIRTIO_BLK_T_FLUSH, 0);
    let mut chain = Chain { head: 0, readable: vec![iov(&mut head)], writable: vec![] };
    assert_eq!(parse(&mut chain, &Driver::block()).unwrap_err(), RingError::Shape);
}

#[test]
fn transfers_out_of_range_or_of_odd_length_are_refused() {
    let block = Driver::block();
    let read =
        |sector, len: usize| run(header(VIRTIO_BLK_T_IN, sector), &mut [], &mut vec![0; len + 1], &block);
    for (sector, len) in [(999, 1024), (1000, 512), (u64::MAX, 512), (u64::MAX / 512, 1024), (0, 100), (0, 0)]
    {
        assert_eq!(answer(read(sector, len)), Status::IoErr, "{sector} {len}");
    }
    assert!(matches!(read(998, 1024), Todo::Backend(_)));
}

#[test]
fn a_read_only_disk_refuses_everything_that_changes_it() {
    let block = BlockParams { readonly: true, ..Driver::block() };
    let mut range = [0u8; 16];
    range[8] = 1;
    assert_eq!(answer(run(header(VIRTIO_BLK_T_OUT, 0), &mut [0; 512], &mut [0], &block)), Status::IoErr);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(answer(run(header(kind, 0), &mut range, &mut [0], &block)), Status::IoErr);
    }
    assert!(matches!(run(header(VIRTIO_BLK_T_IN, 0), &mut [], &mut [0; 513], &block), Todo::Backend(_)));
}

#[test]
fn ranges_obey_their_limits_and_flags() {
    let block = Driver::block();
    let ask = |kind, sector: u64, sectors: u32, flags: u32| {
        let mut range = [0u8; 16];
        range[..8].copy_from_slice(&sector.to_le_bytes());
        range[8..12].copy_from_slice(&sectors.to_le_bytes());
        range[12..].copy_from_slice(&flags.to_le_bytes());
        run(header(kind, 0), &mut range, &mut [0], &block)
    };
    assert_eq!(answer(ask(VIRTIO_BLK_T_DISCARD, 0, 1, 1)), Status::Unsupp, "unmap in a discard");
    assert_eq!(answer(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2)), Status::Unsupp, "unknown flag");
    assert_eq!(answer(ask(VIRTIO_BLK_T_DISCARD, 0, 101, 0)), Status::IoErr, "too long");
    assert_eq!(answer(ask(VIRTIO_BLK_T_DISCARD, 950, 60, 0)), Status::IoErr, "beyond the end");
    assert_eq!(answer(ask(VIRTIO_BLK_T_DISCARD, 0, 0, 0)), Status::IoErr, "nothing");
    for writeback in [true, false] {
        block.writeback.store(writeback, Ordering::Relaxed);
        let Todo::Backend(request) = ask(VIRTIO_BLK_T_WRITE_ZEROES, 10, 20, 1) else { panic!() };
        let op = Op::WriteZeroes { unmap: true, durable: !writeback };
        assert_eq!((request.op, request.offset, request.len), (op, 5120, 10240));
    }
    let two = &mut [0u8; 32];
    assert_eq!(
        answer(run(header(VIRTIO_BLK_T_DISCARD, 0), two, &mut [0], &block)),
        Status::IoErr,
        "two segments"
    );
}

#[test]
fn a_write_through_disk_asks_for_durable_writes() {
    let block = Driver::block();
    for writeback in [true, false] {
        block.writeback.store(writeback, Ordering::Relaxed);
        let Todo::Backend(request) = run(header(VIRTIO_BLK_T_OUT, 0), &mut [0; 512], &mut [0], &block) else {
            panic!()
        };
        assert_eq!(request.op, Op::Write { durable: !writeback });
    }
}

#[test]
fn the_serial_is_given_as_far_as_the_buffer_goes() {
    let (mut full, mut short) = ([0u8; 21], [0u8; 6]);
    assert_eq!(answer(run(header(VIRTIO_BLK_T_GET_ID, 0), &mut [], &mut full, &Driver::block())), Status::Ok);
    assert_eq!(&full[..20], b"serial-of-twenty-byt");
    assert_eq!(
        answer(run(header(VIRTIO_BLK_T_GET_ID, 0), &mut [], &mut short, &Driver::block())),
        Status::Ok
    );
    assert_eq!(&short, b"seria\0");
}

/// An indirect table over the same RAM can request 2^32 bytes and more.
#[test]
fn a_length_that_the_used_ring_cannot_say_is_cut_and_does_not_overflow() {
    let (mut head, mut status) = (header(VIRTIO_BLK_T_IN, 0), [0u8; 1]);
    let base = status.as_mut_ptr().cast();
    for iov_len in [u32::MAX as usize - 1, u32::MAX as usize, 1 << 32, 1 << 40] {
        let writable = vec![libc::iovec { iov_base: base, iov_len }, iov(&mut status)];
        let mut chain = Chain { head: 0, readable: vec![iov(&mut head)], writable };
        assert_eq!(parse(&mut chain, &Driver::block()).unwrap().written, u32::MAX, "{iov_len}");
        head = header(VIRTIO_BLK_T_IN, 0);
    }
}

#[test]
fn a_request_of_2_gib_is_refused_because_it_would_hold_the_thread() {
    let block = BlockParams { capacity: 1 << 40, ..Driver::block() };
    let mut status = [0u8; 1];
    for (kind, len, taken) in [
        (VIRTIO_BLK_T_IN, (1 << 31) - 512, true),
        (VIRTIO_BLK_T_IN, 1 << 31, false),
        (VIRTIO_BLK_T_OUT, (1 << 31) - 512, true),
        (VIRTIO_BLK_T_OUT, 1 << 31, false),
    ] {
        let mut head = header(kind, 0);
        let data = libc::iovec { iov_base: status.as_mut_ptr().cast(), iov_len: len };
        let mut chain = Chain { head: 0, readable: vec![iov(&mut head)], writable: vec![iov(&mut status)] };
        match kind {
            VIRTIO_BLK_T_IN => chain.writable.insert(0, data),
            _ => chain.readable.push(data),
        }
        let todo = parse(&mut chain, &block).unwrap().todo;
        assert_eq!(matches!(todo, Todo::Backend(_)), taken, "{todo:?}");
    }
}
