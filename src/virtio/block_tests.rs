use std::mem::offset_of;

use virtio_bindings::virtio_blk::virtio_blk_config as Layout;

use super::super::testing::blk_config;
use super::*;

fn bit(config: &BlkConfig, bit: u32) -> bool {
    config.features() >> bit & 1 != 0
}

#[test]
fn every_field_is_where_linux_has_it() {
    let config = BlkConfig { queues: 4, queue_size: 128, ..blk_config() };
    let space = config_space(&config, &config.params());
    let le = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&space[at..at + len]);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(le(offset_of!(Layout, capacity), 8), 2048);
    assert_eq!(le(offset_of!(Layout, seg_max), 4), 126);
    assert_eq!(le(offset_of!(Layout, blk_size), 4), 512);
    assert_eq!(le(offset_of!(Layout, physical_block_exp), 1), 3);
    assert_eq!(le(offset_of!(Layout, min_io_size), 2), 8);
    assert_eq!(le(offset_of!(Layout, wce), 1), 1);
    assert_eq!(le(offset_of!(Layout, num_queues), 2), 4);
    assert_eq!(le(offset_of!(Layout, max_discard_sectors), 4), 1 << 21);
    assert_eq!(le(offset_of!(Layout, max_discard_seg), 4), 1);
    assert_eq!(le(offset_of!(Layout, discard_sector_alignment), 4), 8);
    assert_eq!(le(offset_of!(Layout, max_write_zeroes_sectors), 4), 1 << 21);
    assert_eq!(le(offset_of!(Layout, max_write_zeroes_seg), 4), 1);
    assert_eq!(le(offset_of!(Layout, write_zeroes_may_unmap), 1), 1);
    assert_eq!(WRITEBACK as usize, offset_of!(Layout, wce));
    assert_eq!(
        DEVICE_LEN,
        offset_of!(Layout, max_secure_erase_sectors),
        "virtio 1.2, 5.2.4: the fields before secure erase end at 60"
    );
}

#[test]
fn a_disk_of_4_kib_blocks_says_so_in_blocks() {
    let mut config = blk_config();
    config.geometry.logical_block = 4096;
    config.geometry.optimal_io = 65536;
    let space = config_space(&config, &config.params());
    assert_eq!(space[20..32], [0, 16, 0, 0, 0, 0, 1, 0, 16, 0, 0, 0]);
    assert_eq!(space[0..8], 2048u64.to_le_bytes(), "capacity stays in sectors");
}

#[test]
fn the_offered_features_follow_the_disk() {
    let config = blk_config();
    for always in
        [VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_CONFIG_WCE]
    {
        assert!(bit(&config, always));
    }
    assert!(bit(&config, VIRTIO_BLK_F_DISCARD) && bit(&config, VIRTIO_BLK_F_WRITE_ZEROES));
    assert!(bit(&config, VIRTIO_BLK_F_MQ) && !bit(&config, VIRTIO_BLK_F_RO));
    let readonly = BlkConfig { readonly: true, queues: 1, event_idx: false, ..blk_config() };
    for absent in [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_F_MQ, VIRTIO_RING_F_EVENT_IDX]
    {
        assert!(!bit(&readonly, absent), "feature {absent}");
    }
    assert!(bit(&readonly, VIRTIO_BLK_F_RO));
    for packed in [false, true] {
        assert_eq!(bit(&BlkConfig { packed, ..blk_config() }, VIRTIO_F_RING_PACKED), packed);
    }
    assert_eq!(config_space(&readonly, &readonly.params())[36..], [0; 24]);
    let undiscardable = BlkConfig { discard: false, ..blk_config() };
    let may_unmap = config_space(&undiscardable, &undiscardable.params())[56];
    assert_eq!(may_unmap, 0, "without discard, write-zeroes does not promise to free space");
    assert!(!bit(&undiscardable, VIRTIO_BLK_F_DISCARD) && bit(&undiscardable, VIRTIO_BLK_F_WRITE_ZEROES));
}

#[test]
fn a_driver_that_can_neither_flush_nor_switch_gets_a_write_through_disk() {
    assert!(!writeback_after(1 << VIRTIO_F_VERSION_1));
    assert!(writeback_after(1 << VIRTIO_BLK_F_FLUSH));
    assert!(
        !writeback_after(1 << VIRTIO_BLK_F_CONFIG_WCE),
        "5.2.5.2: without FLUSH it starts as write-through"
    );
    assert!(writeback_after(1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE));
}

#[test]
fn only_the_writeback_byte_can_be_written_and_only_if_negotiated() {
    let wce = 1 << VIRTIO_BLK_F_CONFIG_WCE;
    assert_eq!(written_writeback(wce, 32, &[0]), Some(false));
    assert_eq!(written_writeback(wce, 28, &[0, 0, 0, 0, 1, 0, 0, 0]), Some(true));
    assert_eq!(written_writeback(wce, 33, &[0]), None);
    assert_eq!(written_writeback(wce, 30, &[0, 0]), None);
    assert_eq!(written_writeback(wce, u64::MAX, &[0, 0]), None);
    assert_eq!(written_writeback(0, 32, &[0]), None);
}

#[test]
fn a_serial_number_is_cut_to_the_20_bytes_of_get_id() {
    let config = BlkConfig { serial: "0123456789012345678901234".into(), ..blk_config() };
    assert_eq!(&config.params().serial, b"01234567890123456789");
    assert_eq!(blk_config().params().serial[..6], *b"lab0\0\0");
}

#[test]
fn sizes_that_no_driver_could_use_are_refused_in_one_sentence() {
    let queues = BlkConfig { queues: 17, ..blk_config() };
    assert_eq!(queues.problem().unwrap(), "disk0 cannot have 17 queues; use 1 to 16");
    for queue_size in [0, 1, 100, 2048] {
        let problem = BlkConfig { queue_size, ..blk_config() }.problem().unwrap();
        assert!(problem.contains("use a power of two from 2 to 1024"), "{problem}");
    }
    assert_eq!(blk_config().problem(), None);
}
