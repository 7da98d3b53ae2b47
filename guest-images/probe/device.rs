//! virtio-blk over virtio-pci (virtio 1.2, 4.1 and 5.2): the device table, status, reset. `scan` fills the table,
//! `setup` brings a device up.

use crate::abi::*;
use crate::cpu;
use crate::cpu::{load, store};
use core::mem::offset_of;

/// Device status bits (2.1).
pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 64;

const F_BLK_FLUSH: u64 = 1 << 9;
pub const F_BLK_MQ: u64 = 1 << 12;
const F_BLK_DISCARD: u64 = 1 << 13;
const F_BLK_WRITE_ZEROES: u64 = 1 << 14;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;
pub const F_PACKED: u64 = 1 << 34;
pub const F_NOTIFICATION_DATA: u64 = 1 << 38;
pub const F_RING_RESET: u64 = 1 << 40;
/// What the guest can do.
pub const KNOWN: u64 = F_BLK_FLUSH
    | F_BLK_MQ
    | F_BLK_DISCARD
    | F_BLK_WRITE_ZEROES
    | F_INDIRECT
    | F_EVENT_IDX
    | F_VERSION_1
    | F_PACKED
    | F_NOTIFICATION_DATA
    | F_RING_RESET;

fn entry(index: usize) -> u64 {
    DEVICE_TABLE + (index * DeviceInfo::SIZE) as u64
}

/// A device of the table.
pub fn info(index: u32) -> Option<DeviceInfo> {
    let count: u32 = load(CONTROL + offset_of!(Control, devices) as u64);
    (index < count).then(|| load(entry(index as usize)))
}

pub fn update(index: u32, info: &DeviceInfo) {
    store(entry(index as usize), *info);
}

/// Returns the device status register.
pub fn status(info: &DeviceInfo) -> u8 {
    load(info.common + 20)
}

/// Resets the device and waits until its status reads 0 (2.4.2). Returns whether it did.
pub fn reset(index: u32) -> bool {
    let Some(mut info) = info(index) else { return false };
    store(info.common + 20, 0u8);
    let from = cpu::tsc();
    while status(&info) != 0 {
        if cpu::tsc().wrapping_sub(from) > DEFAULT_DEADLINE {
            return false;
        }
        cpu::pause();
    }
    info.status = 0;
    info.queues = 0;
    update(index, &info);
    true
}

/// Ticks after which a wait ends if the job gives no deadline.
pub const DEFAULT_DEADLINE: u64 = 1 << 34;
