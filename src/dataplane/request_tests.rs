use proptest::prelude::*;

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
    let mut chain =
        Chain { head: Default::default(), readable: vec![iov(&mut head)], writable: vec![iov(writable)] };
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
    let mut chain =
        Chain { head: Default::default(), readable: vec![iov(a), iov(b)], writable: vec![iov(c), iov(d)] };
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
    let mut chain =
        Chain { head: Default::default(), readable: vec![iov(&mut short)], writable: vec![iov(&mut status)] };
    assert_eq!(parse(&mut chain, &Driver::block()).unwrap_err(), RingError::Shape);
    let mut head = header(VIRTIO_BLK_T_FLUSH, 0);
    let mut chain = Chain { head: Default::default(), readable: vec![iov(&mut head)], writable: vec![] };
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
        let mut chain = Chain { head: Default::default(), readable: vec![iov(&mut head)], writable };
        assert_eq!(parse(&mut chain, &Driver::block()).unwrap().written, u32::MAX, "{iov_len}");
        head = header(VIRTIO_BLK_T_IN, 0);
    }
}

#[test]
fn a_request_of_2_gib_is_refused_because_it_would_hold_the_thread() {
    let block = BlockParams { capacity: (1u64 << 40).into(), ..Driver::block() };
    let mut status = [0u8; 1];
    for (kind, len, taken) in [
        (VIRTIO_BLK_T_IN, (1 << 31) - 512, true),
        (VIRTIO_BLK_T_IN, 1 << 31, false),
        (VIRTIO_BLK_T_OUT, (1 << 31) - 512, true),
        (VIRTIO_BLK_T_OUT, 1 << 31, false),
    ] {
        let mut head = header(kind, 0);
        let data = libc::iovec { iov_base: status.as_mut_ptr().cast(), iov_len: len };
        let mut chain = Chain {
            head: Default::default(),
            readable: vec![iov(&mut head)],
            writable: vec![iov(&mut status)],
        };
        match kind {
            VIRTIO_BLK_T_IN => chain.writable.insert(0, data),
            _ => chain.readable.push(data),
        }
        let todo = parse(&mut chain, &block).unwrap().todo;
        assert_eq!(matches!(todo, Todo::Backend(_)), taken, "{todo:?}");
    }
}

/// What a request must come to, from its bytes as a whole: virtio 1.2, 5.2.6, read once more and without any buffers.
fn model(readable: &[u8], writable: usize, block: &BlockParams) -> Option<Result<Op, Status>> {
    let header = readable.get(..16).filter(|_| writable > 0)?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let (kind, sector, data) = (number(&header[..4]) as u32, number(&header[8..16]), &readable[16..]);
    let capacity = block.capacity.load(Ordering::Relaxed);
    let fits = |sector: u64, sectors: u64| {
        sectors > 0 && u128::from(sector) + u128::from(sectors) <= capacity.into()
    };
    let transfer = |len: usize| len.is_multiple_of(512) && fits(sector, len as u64 / 512);
    let ok = |op, good| if good { Ok(op) } else { Err(Status::IoErr) };
    let durable = !block.writeback.load(Ordering::Relaxed);
    Some(match kind {
        VIRTIO_BLK_T_IN => ok(Op::Read, data.is_empty() && transfer(writable - 1)),
        VIRTIO_BLK_T_OUT => {
            ok(Op::Write { durable }, writable == 1 && !block.readonly && transfer(data.len()))
        }
        VIRTIO_BLK_T_FLUSH => Ok(Op::Flush),
        VIRTIO_BLK_T_GET_ID => Err(Status::Ok),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
            let zeroes = kind == VIRTIO_BLK_T_WRITE_ZEROES;
            let op = |unmap| if zeroes { Op::WriteZeroes { unmap, durable } } else { Op::Discard };
            match data.len() {
                16 if number(&data[12..]) & !u64::from(zeroes) != 0 => Err(Status::Unsupp),
                16 => {
                    let (sector, sectors) = (number(&data[..8]), number(&data[8..12]));
                    ok(op(data[12] == 1), !block.readonly && sectors <= 100 && fits(sector, sectors))
                }
                _ => Err(Status::IoErr),
            }
        }
        _ => Err(Status::Unsupp),
    })
}

/// `bytes` as buffers that end at `cuts`.
fn cut(bytes: &mut [u8], cuts: &[prop::sample::Index]) -> Vec<libc::iovec> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.dedup();
    let base = bytes.as_mut_ptr();
    let buffer = |ends: &[usize]| {
        // SAFETY: inside of `bytes`.
        let iov_base = unsafe { base.add(ends[0]).cast() };
        libc::iovec { iov_base, iov_len: ends[1] - ends[0] }
    };
    at.windows(2).map(buffer).collect()
}

proptest! {
    /// However a request is cut into buffers: what it comes to is what its bytes say, and no byte outside of it changes.
    #[test]
    fn requests_are_what_their_bytes_say(
        kind in prop_oneof![9 => 0..15u32, 1 => any::<u32>()],
        sector in prop_oneof![4 => 0..1010u64, 1 => any::<u64>()],
        head in prop_oneof![9 => Just(16usize), 1 => 0..16usize],
        data in prop_oneof![
            (0..5usize).prop_map(|n| vec![7; n * 512]),
            (0..1010u64, 0..110u32, prop_oneof![4 => 0..2u32, 1 => any::<u32>()]).prop_map(|(sector, sectors, flags)| {
                [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
            }),
            prop::collection::vec(any::<u8>(), 0..40),
        ],
        writable in prop_oneof![4 => (0..5usize).prop_map(|n| n * 512 + 1), 2 => 0..30usize],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        (readonly, writeback) in any::<(bool, bool)>(),
    ) {
        let block = BlockParams { readonly, writeback: writeback.into(), ..Driver::block() };
        let mut readable = header(kind, sector)[..head].to_vec();
        if head == 16 {
            readable.extend(&data);
        }
        let before = readable.clone();
        // One byte of another on either side.
        let mut memory = vec![0xa5; writable + 2];
        let mut chain = Chain {
            head: Default::default(),
            readable: cut(&mut readable, &cuts),
            writable: cut(&mut memory[1..=writable], &cuts),
        };
        let parsed = parse(&mut chain, &block);
        let expected = model(&before, writable, &block);
        match (parsed, expected) {
            (Err(error), None) => prop_assert_eq!(error, RingError::Shape),
            (Ok(parsed), Some(expected)) => {
                prop_assert_eq!(parsed.status.cast_const(), &raw const memory[writable], "the last byte");
                match (parsed.todo, expected) {
                    (Todo::Backend(request), Ok(op)) => {
                        prop_assert_eq!(request.op, op);
                        let bytes: usize = request.buffers.iter().map(|buffer| buffer.iov_len).sum();
                        let expected = match op {
                            Op::Read => writable - 1,
                            Op::Write { .. } => data.len(),
                            _ => 0,
                        };
                        prop_assert_eq!(bytes, expected);
                    }
                    (Todo::Answer(status), Err(expected)) => prop_assert_eq!(status, expected),
                    (todo, expected) => prop_assert!(false, "{todo:?} instead of {expected:?}"),
                }
            }
            (parsed, expected) => prop_assert!(false, "{parsed:?} instead of {expected:?}"),
        }
        prop_assert_eq!((memory[0], memory[writable + 1]), (0xa5, 0xa5));
        prop_assert_eq!(readable, before);
    }
}
