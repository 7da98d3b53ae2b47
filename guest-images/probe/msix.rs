//! The MSI-X table (PCI 3.0, 6.8.2), written as a guest does.

use crate::abi::DeviceInfo;
use crate::cpu::store;
use crate::pci::Function;

const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;

fn entry(info: &DeviceInfo, index: u32) -> u64 {
    info.msix_table + 16 * index as u64
}

/// Enables MSI-X and clears the function mask. Entries keep their masks.
pub fn enable(info: &DeviceInfo, function: Function) {
    set_control(info, function, ENABLE);
}

/// Disables MSI-X. The device then uses INTx.
pub fn disable(info: &DeviceInfo, function: Function) {
    set_control(info, function, 0);
}

fn set_control(info: &DeviceInfo, function: Function, bits: u32) {
    let at = info.msix_capability as u16;
    if at != 0 {
        let now = function.read(at);
        function.write(at, now & !(ENABLE | FUNCTION_MASK) | bits);
    }
}

/// Writes an entry's message: fixed delivery of `vector` to one CPU. Masks the entry; `set_mask` unmasks it.
pub fn write(info: &DeviceInfo, index: u32, vector: u32, apic_id: u32) {
    set_mask(info, index, true);
    let at = entry(info, index);
    store(at, 0xfee0_0000 | apic_id << 12);
    store(at + 4, 0u32);
    store(at + 8, vector);
}

/// Writes only an entry's data word, without masking the entry.
pub fn write_vector_live(info: &DeviceInfo, index: u32, vector: u32) {
    store(entry(info, index) + 8, vector);
}

pub fn set_mask(info: &DeviceInfo, index: u32, masked: bool) {
    store(entry(info, index) + 12, masked as u32);
}
