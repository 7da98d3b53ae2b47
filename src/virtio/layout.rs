//! Where the device's registers are, and the capabilities that say so (virtio 1.2, 4.1.4).
//!
//! BAR 0 is 32 KiB of 64-bit memory. Each structure has its own page, so that it can be mapped or trapped alone:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0x0000 | 0x3c | common configuration |
//! | 0x1000 | 1 | ISR status |
//! | 0x2000 | 0x3c | device configuration (`virtio_blk_config`) |
//! | 0x3000 | 8 | MSI-X pending bits |
//! | 0x4000 | 16 per vector | MSI-X table |
//! | 0x5000 | 4 per queue | notify registers |
//!
//! With `notify=pio` the notify registers are I/O ports instead, in BAR 2, 4 bytes per queue. There is one notify
//! capability, so the driver has no choice and uses the configured path.

use crate::pci::{Bar, BarKind, BarOffset, Capability};

use super::NotifyPath;

/// Most queues of a device.
pub const MAX_QUEUES: u16 = 16;
/// Largest queue, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

pub(super) const MEMORY_BAR: u8 = 0;
pub(super) const IO_BAR: u8 = 2;

const BAR_LEN: u64 = 0x8000;
pub(super) const PAGE: u64 = 0x1000;
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const PBA: u64 = 0x3000;
pub(super) const TABLE: u64 = 0x4000;
pub(super) const NOTIFY: u64 = 0x5000;

pub(super) const COMMON_LEN: usize = 0x3c;
pub(super) const DEVICE_LEN: usize = 0x3c;
/// `notify_off_multiplier`, in bytes: queue n's register is n times this after queue 0's (virtio 1.2, 4.1.4.4).
pub(super) const NOTIFY_STRIDE: u64 = 4;

/// Capability ID "vendor specific".
pub(super) const VENDOR_CAPABILITY: u8 = 0x09;

// cfg_type, virtio 1.2, 4.1.4.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Which address space the notify registers are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotifySpace {
    Memory,
    Io,
}

impl NotifySpace {
    /// Where the registers must be for `path`.
    pub(super) fn of(path: NotifyPath) -> NotifySpace {
        if path == NotifyPath::Pio { NotifySpace::Io } else { NotifySpace::Memory }
    }

    /// BAR and offset of queue 0's register.
    pub(super) fn place(self) -> (u8, u64) {
        match self {
            NotifySpace::Memory => (MEMORY_BAR, NOTIFY),
            NotifySpace::Io => (IO_BAR, 0),
        }
    }
}

pub(super) fn bars(notify: NotifySpace, queues: u16) -> Vec<Bar> {
    let mut bars = vec![Bar { index: MEMORY_BAR, kind: BarKind::Memory64, len: BAR_LEN }];
    if notify == NotifySpace::Io {
        bars.push(Bar { index: IO_BAR, kind: BarKind::Io, len: u64::from(queues) * NOTIFY_STRIDE });
    }
    bars
}

/// The four structures of a BAR, in the order of preference that the specification suggests.
pub(super) fn structures(notify: NotifySpace, queues: u16) -> [Capability; 4] {
    let (bar, offset) = notify.place();
    let notify_len = u32::from(queues) * NOTIFY_STRIDE as u32;
    let mut doorbells = vendor(NOTIFY_CFG, bar, offset as u32, notify_len);
    append(&mut doorbells, &(NOTIFY_STRIDE as u32).to_le_bytes());
    [
        vendor(COMMON_CFG, MEMORY_BAR, COMMON as u32, COMMON_LEN as u32),
        doorbells,
        vendor(ISR_CFG, MEMORY_BAR, ISR as u32, 1),
        vendor(DEVICE_CFG, MEMORY_BAR, DEVICE as u32, DEVICE_LEN as u32),
    ]
}

/// VIRTIO_PCI_CAP_PCI_CFG, a window to the BARs in config space (virtio 1.2, 4.1.4.9): the driver writes BAR, offset and length, then reads or writes
/// the four data bytes at the end.
pub(super) fn window() -> Capability {
    let mut capability = vendor(PCI_CFG, 0, 0, 0);
    append(&mut capability, &[0; 4]);
    capability.writable = vec![0; capability.body.len()];
    capability.writable[WINDOW_BAR - 2] = 0xff;
    capability.writable[WINDOW_OFFSET - 2..].fill(0xff);
    capability
}

// Offsets in the window capability, from its ID byte on.
pub(super) const WINDOW_BAR: usize = 4;
pub(super) const WINDOW_OFFSET: usize = 8;
pub(super) const WINDOW_LENGTH: usize = 12;
pub(super) const WINDOW_DATA: usize = 16;

pub(super) fn msix_places() -> (BarOffset, BarOffset) {
    let at = |offset: u64| BarOffset { bar: MEMORY_BAR, offset: offset as u32 };
    (at(TABLE), at(PBA))
}

/// `struct virtio_pci_cap` from its `cap_len` on.
fn vendor(kind: u8, bar: u8, offset: u32, length: u32) -> Capability {
    let mut body = vec![16, kind, bar, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    Capability { id: VENDOR_CAPABILITY, body, writable: vec![] }
}

fn append(capability: &mut Capability, bytes: &[u8]) {
    capability.body.extend(bytes);
    capability.body[0] += bytes.len() as u8;
}
