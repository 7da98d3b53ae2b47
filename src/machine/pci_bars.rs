//! The work of firmware on BARs: size each one, give it an address, switch decoding on.

use super::layout::{MMIO32_END, MMIO32_START, MMIO64_END, MMIO64_START, PIO_END, PIO_START, intx_gsi};
use crate::pci::PciDevice;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
const DECODE: u32 = 0x3;

/// Number of slots of a bus.
pub const SLOTS: usize = 32;

/// There is no free slot, or no free address space.
#[derive(Debug, thiserror::Error)]
pub enum PciFull {
    /// The bus has 31 devices.
    #[error("no free PCI slot: the machine has {} for devices; use fewer disks", SLOTS - 1)]
    Slots,
    /// A BAR window is full.
    #[error("no room for a {len:#x}-byte BAR of the device in slot {slot}")]
    Bars {
        /// Slot of the device.
        slot: u8,
        /// Length of the BAR in bytes.
        len: u64,
    },
}

/// The free parts of the BAR windows.
pub struct BarSpace {
    pio: (u64, u64),
    low: (u64, u64),
    high: (u64, u64),
}

impl BarSpace {
    /// Returns the whole windows, all free.
    pub fn whole() -> BarSpace {
        BarSpace {
            pio: (PIO_START, PIO_END),
            low: (MMIO32_START, MMIO32_END),
            high: (MMIO64_START, MMIO64_END),
        }
    }
}

/// Takes `len` bytes (a power of two), naturally aligned, from `free`. Returns their address.
fn take(free: &mut (u64, u64), len: u64) -> Option<u64> {
    let base = free.0.checked_next_multiple_of(len)?;
    let end = base.checked_add(len).filter(|&end| end <= free.1)?;
    free.0 = end;
    Some(base)
}

fn read(device: &dyn PciDevice, offset: u16) -> u32 {
    let mut data = [0; 4];
    device.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(device: &dyn PciDevice, offset: u16, value: u32) {
    device.config_write(offset, &value.to_le_bytes());
}

/// Writes all ones, and reads and returns the size mask (PCI Local Bus 3.0, 6.2.5.1).
fn probe(device: &dyn PciDevice, offset: u16) -> u32 {
    write(device, offset, u32::MAX);
    read(device, offset)
}

/// Gives every BAR of `device` an address, and switches I/O and memory decoding on.
///
/// # Errors
/// A window is full.
pub fn assign(device: &dyn PciDevice, slot: u8, space: &mut BarSpace) -> Result<(), PciFull> {
    let command = read(device, COMMAND) & 0xffff;
    device.config_write(COMMAND, &((command & !DECODE) as u16).to_le_bytes());
    let mut bar = 0;
    while bar < 6 {
        let offset = BAR0 + 4 * bar;
        let mask = probe(device, offset);
        bar += 1;
        if mask == 0 {
            continue;
        }
        let io = mask & 1 != 0;
        let wide = !io && mask & 0x6 == 0x4 && bar < 6;
        let mut size_mask = u64::from(mask & if io { !0x3 } else { !0xf });
        size_mask |= match (io, wide) {
            // I/O BARs may not implement the upper half of the mask.
            (true, _) => 0xffff_ffff_ffff_0000,
            (_, true) => u64::from(probe(device, offset + 4)) << 32,
            _ => 0xffff_ffff_0000_0000,
        };
        let len = size_mask.wrapping_neg();
        if !len.is_power_of_two() {
            continue;
        }
        let prefetchable = mask & 0x8 != 0;
        let window = match (io, wide && prefetchable) {
            (true, _) => &mut space.pio,
            (_, true) => &mut space.high,
            _ => &mut space.low,
        };
        let base = take(window, len).ok_or(PciFull::Bars { slot, len })?;
        write(device, offset, base as u32);
        if wide {
            write(device, offset + 4, (base >> 32) as u32);
            bar += 1;
        }
    }
    device.config_write(COMMAND, &((command | DECODE) as u16).to_le_bytes());
    let mut pin = [0];
    device.config_read(INTERRUPT_PIN, &mut pin);
    if (1..=4).contains(&pin[0]) {
        device.config_write(INTERRUPT_LINE, &[intx_gsi(slot, pin[0]) as u8]);
    }
    Ok(())
}
