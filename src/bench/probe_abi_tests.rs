use super::*;

#[test]
fn structures_survive_the_way_through_bytes() {
    let job = GuestJob {
        seq: 7,
        kind: kind::IO,
        requests: 100_000,
        deadline: 1 << 40,
        features: 5,
        ..Default::default()
    };
    assert_eq!(GuestJob::from_bytes(&job.to_bytes()), job);
    let sample = Sample { start: u64::MAX, kicked: 1, handler: 2, seen: 3, done: 4 };
    assert_eq!(Sample::from_bytes(&sample.to_bytes()), sample);
    assert_eq!(&sample.to_bytes()[8..], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
}

#[test]
fn the_words_that_both_sides_poll_stay_where_version_1_put_them() {
    assert_eq!(VERSION, 1);
    assert_eq!(offset_of!(GuestJob, seq), 0);
    assert_eq!(offset_of!(Outcome, done), 0);
    assert_eq!(offset_of!(Outcome, status), 4);
    assert_eq!(offset_of!(Outcome, completed), 8);
    assert_eq!((offset_of!(Control, magic), offset_of!(Control, mode)), (0, 12));
    assert_eq!((offset_of!(Control, text_port), offset_of!(Control, state)), (40, 44));
    assert_eq!((Control::SIZE, GuestJob::SIZE, Outcome::SIZE), (72, 168, 160));
    assert_eq!((Sample::SIZE, DeviceInfo::SIZE, Trap::SIZE), (24, 104, 48));
}
