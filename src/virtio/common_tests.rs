use proptest::prelude::*;

use super::super::testing::{EVENT_IDX, RING_PACKED, VERSION_1};
use super::*;
use crate::dataplane::{CompletePath, DeviceInterrupts};
use crate::kvm::testing::FakeVm;
use crate::kvm::{Routes, Vector};

const OFFERED: u64 = VERSION_1 | EVENT_IDX | 1 << 9;

fn common() -> Common {
    let vm = FakeVm::new();
    let routes = std::sync::Arc::new(Routes::new(vm.clone(), 4096));
    let vectors = (0..3).map(|_| Vector::new(vm.clone(), routes.clone(), true).unwrap().into()).collect();
    let interrupts = DeviceInterrupts::new(vectors, None, CompletePath::Irqfd);
    let queues = (0..2).map(|_| QueueRegs::new(256, interrupts.queue_interrupt())).collect();
    Common::new(OFFERED, queues, interrupts.config_interrupt())
}

fn get(common: &Common, at: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    crate::pci::load(&common.image(0, 0), at, &mut data[..len]);
    u64::from_le_bytes(data)
}

fn put(common: &mut Common, at: u64, value: u64, len: usize) -> Effect {
    common.write(at, &value.to_le_bytes()[..len])
}

fn accept(common: &mut Common, features: u64) {
    for select in 0..2 {
        put(common, 0x08, select, 4);
        put(common, 0x0c, features >> (32 * select), 4);
    }
}

#[test]
fn features_are_offered_in_words_of_32() {
    let mut common = common();
    let mut words = vec![];
    for select in [0, 1, 2, 0xffff_ffff] {
        put(&mut common, 0x00, select, 4);
        words.push(get(&common, 0x04, 4));
    }
    assert_eq!(words, [OFFERED & 0xffff_ffff, 1, 0, 0]);
}

#[test]
fn features_ok_sticks_only_for_a_subset_with_version_1() {
    for (features, sticks) in [
        (VERSION_1, true),
        (VERSION_1 | EVENT_IDX, true),
        (EVENT_IDX, false),
        (0, false),
        (VERSION_1 | 1 << 5, false),
        (VERSION_1 | 1 << 63, false),
    ] {
        let mut common = common();
        accept(&mut common, features);
        let effect = put(&mut common, 0x14, 11, 1);
        assert_eq!(get(&common, 0x14, 1), if sticks { 11 } else { 3 }, "{features:#x}");
        assert_eq!(effect.negotiated, sticks);
        assert_eq!(common.features(), if sticks { features } else { 0 });
    }
}

#[test]
fn a_driver_may_try_again_with_fewer_features_but_not_change_them_once_agreed() {
    let mut common = common();
    accept(&mut common, VERSION_1 | 1 << 5);
    put(&mut common, 0x14, 11, 1);
    accept(&mut common, VERSION_1);
    put(&mut common, 0x14, 11, 1);
    assert_eq!(common.features(), VERSION_1);
    accept(&mut common, OFFERED);
    assert_eq!(common.features(), VERSION_1);
}

#[test]
fn status_bits_are_added_never_taken_and_needs_reset_is_not_the_drivers() {
    let mut common = common();
    put(&mut common, 0x14, 3, 1);
    put(&mut common, 0x14, 1, 1);
    assert_eq!(get(&common, 0x14, 1), 3);
    put(&mut common, 0x14, 0x70, 1);
    assert_eq!(get(&common, 0x14, 1), 3);
    assert_eq!(common.image(0x40, 0)[0x14], 0x43);
    put(&mut common, 0x14, 0x80, 1);
    assert_eq!(get(&common, 0x14, 1), 0x83);
}

#[test]
fn driver_ok_needs_features_ok() {
    let mut common = common();
    put(&mut common, 0x14, 7, 1);
    assert_eq!(get(&common, 0x14, 1), 3);
    accept(&mut common, VERSION_1);
    assert!(put(&mut common, 0x14, 15, 1).changed);
    assert_eq!(get(&common, 0x14, 1), 15);
}

#[test]
fn status_0_asks_for_a_reset_and_leaves_the_status_until_it_is_done() {
    let mut common = common();
    put(&mut common, 0x14, 3, 1);
    assert_eq!(put(&mut common, 0x14, 0, 1), Effect { reset: true, ..Effect::default() });
    assert_eq!(get(&common, 0x14, 1), 3);
    common.reset();
    assert_eq!(get(&common, 0x14, 1), 0);
}

#[test]
fn addresses_can_be_written_in_halves_whole_or_bytewise() {
    let mut common = common();
    put(&mut common, 0x20, 0x1111_2220, 4);
    put(&mut common, 0x24, 0x3, 4);
    put(&mut common, 0x28, 0x4_5555_6660, 8);
    for n in 0..8 {
        put(&mut common, 0x30 + n, 0x10 + n, 1);
    }
    let queue = &common.queues[0];
    assert_eq!(
        (queue.desc, queue.driver, queue.device),
        (0x3_1111_2220, 0x4_5555_6660, 0x1716_1514_1312_1110)
    );
    assert_eq!(get(&common, 0x2c, 4), 4);
}

#[test]
fn one_store_may_cover_several_fields() {
    let mut common = common();
    put(&mut common, 0x16, 0x0080_0001, 4);
    assert_eq!((get(&common, 0x16, 2), common.queues[0].size, common.queues[1].size), (1, 256, 128));
}

#[test]
fn a_queue_is_fixed_once_it_is_enabled_and_enabling_cannot_be_taken_back() {
    let mut common = common();
    put(&mut common, 0x18, 64, 2);
    assert!(!put(&mut common, 0x1c, 2, 2).changed, "only 1 enables");
    assert!(put(&mut common, 0x1c, 1, 2).changed);
    put(&mut common, 0x18, 32, 2);
    put(&mut common, 0x20, 0x1000, 8);
    put(&mut common, 0x1c, 0, 2);
    assert_eq!((get(&common, 0x18, 2), get(&common, 0x20, 8), get(&common, 0x1c, 2)), (64, 0, 1));
}

#[test]
fn a_queue_that_does_not_exist_has_size_0_and_takes_nothing() {
    let mut common = common();
    put(&mut common, 0x16, 2, 2);
    for (at, len) in [(0x18, 2), (0x1a, 2), (0x1c, 2), (0x20, 8), (0x28, 8), (0x30, 8)] {
        assert_eq!(put(&mut common, at, 1, len), Effect::default());
    }
    assert_eq!((get(&common, 0x18, 2), get(&common, 0x1a, 2), get(&common, 0x20, 8)), (0, 0xffff, 0));
    assert_eq!(get(&common, 0x12, 2), 2);
}

#[test]
fn vectors_out_of_range_read_back_no_vector() {
    let mut common = common();
    for (at, vector, reads) in
        [(0x10, 2, 2), (0x10, 3, 0xffff), (0x1a, 0, 0), (0x1a, 0x8000, 0xffff), (0x1a, 0xffff, 0xffff)]
    {
        put(&mut common, at, vector, 2);
        assert_eq!(get(&common, at, 2), reads, "{vector} at {at:#x}");
    }
}

#[test]
fn reset_forgets_everything() {
    let mut common = common();
    let fresh = common.image(0, 0);
    accept(&mut common, VERSION_1);
    for (at, value, len) in [
        (0, 1, 4),
        (0x14, 15, 1),
        (0x10, 1, 2),
        (0x16, 1, 2),
        (0x18, 8, 2),
        (0x1a, 1, 2),
        (0x20, 16, 8),
        (0x1c, 1, 2),
    ] {
        put(&mut common, at, value, len);
    }
    assert_ne!(common.image(0, 0), fresh);
    common.reset();
    assert_eq!(common.image(0, 0), fresh);
    put(&mut common, 0x16, 1, 2);
    assert_eq!((get(&common, 0x18, 2), get(&common, 0x1a, 2), get(&common, 0x20, 8)), (256, 0xffff, 0));
}

#[test]
fn rings_must_be_aligned_and_sized_as_the_specification_says() {
    let with = |features, size, desc, driver, device| {
        let mut common = common();
        for (at, value, len) in [(0x18, size, 2), (0x20, desc, 8), (0x28, driver, 8), (0x30, device, 8)] {
            put(&mut common, at, value, len);
        }
        common.queues[0].layout(features)
    };
    let regs = |size, desc, driver, device| with(EVENT_IDX, size, desc, driver, device);
    let layout = regs(256, 0x1010, 0x2002, 0x3004).unwrap();
    assert_eq!((layout.size, layout.desc, layout.avail, layout.used), (256, 0x1010, 0x2002, 0x3004));
    assert!(layout.event_idx && !layout.indirect);
    for (size, desc, driver, device) in [
        (0, 0x1000, 0x2000, 0x3000),
        (3, 0x1000, 0x2000, 0x3000),
        (512, 0x1000, 0x2000, 0x3000),
        (256, 0x1008, 0x2000, 0x3000),
        (256, 0x1000, 0x2001, 0x3000),
        (256, 0x1000, 0x2000, 0x3002),
    ] {
        assert!(regs(size, desc, driver, device).is_err());
    }
    // A packed ring may have any size; the driver area is aligned like the device area (virtio 1.2, 2.8.10.1).
    let packed = |size, desc, driver, device| with(RING_PACKED, size, desc, driver, device);
    let layout = packed(100, 0x1010, 0x2004, 0x3004).unwrap();
    assert!(layout.packed && layout.size == 100);
    for (size, desc, driver, device) in [
        (0, 0x1000, 0x2000, 0x3000),
        (257, 0x1000, 0x2000, 0x3000),
        (256, 0x1008, 0x2000, 0x3000),
        (256, 0x1000, 0x2002, 0x3000),
        (256, 0x1000, 0x2000, 0x3002),
    ] {
        assert!(packed(size, desc, driver, device).is_err());
    }
}

proptest! {
    #[test]
    fn any_store_is_safe_and_loads_agree_whatever_their_width(
        stores in prop::collection::vec((0u64..0x48, prop::collection::vec(any::<u8>(), 1..9)), 0..60),
        at in any::<u64>(),
    ) {
        let mut common = common();
        for (offset, data) in stores {
            common.write(offset, &data);
            common.write(at, &data);
        }
        let image = common.image(0, 0);
        for width in [1, 2, 4, 8] {
            for (n, part) in image.chunks(width).enumerate() {
                let value = get(&common, (n * width) as u64, part.len()).to_le_bytes();
                prop_assert_eq!(&value[..part.len()], part);
            }
        }
        prop_assert_eq!(common.features() & !OFFERED, 0);
        prop_assert!(common.status() & DRIVER_OK == 0 || common.features() & VERSION_1 != 0);
    }
}

#[test]
fn feature_words_behind_the_second_read_0_and_take_nothing() {
    let mut common = common();
    accept(&mut common, VERSION_1);
    for select in [2, 3, 31, u32::MAX] {
        put(&mut common, 0x08, select.into(), 4);
        put(&mut common, 0x0c, 0xffff_ffff, 4);
        assert_eq!(get(&common, 0x0c, 4), 0);
    }
    put(&mut common, 0x14, 11, 1);
    assert_eq!((get(&common, 0x14, 1), common.features()), (11, VERSION_1));
}
