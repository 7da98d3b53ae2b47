//! Finds the devices: bus 0, BARs, virtio-pci capabilities (4.1.4), MSI-X.

use crate::abi::{DeviceInfo, MAX_DEVICES};
use crate::cpu::{load, store};
use crate::device;
use crate::pci::{self, Bar, Function};

/// Searches bus 0 and fills the device table. Returns the number of devices.
pub fn scan() -> usize {
    let mut count = 0;
    for slot in 0..32u16 {
        for function in 0..8 {
            let function = Function(slot << 3 | function);
            let id = function.read(0);
            if function.0 & 7 == 0 && (id == !0 || id == 0) {
                break;
            }
            if matches!(id, 0x1042_1af4 | 0x1001_1af4) && count < MAX_DEVICES {
                device::update(count as u32, &describe(function, id >> 16));
                count += 1;
            }
            if function.0 & 7 == 0 && function.read8(0xe) & 0x80 == 0 {
                break;
            }
        }
    }
    count
}

fn describe(function: Function, id: u32) -> DeviceInfo {
    let bars = pci::place_bars(function);
    let mut info = DeviceInfo { bdf: function.0 as u32, id, ..Default::default() };
    for at in function.capabilities(9) {
        let (kind, bar) = (function.read8(at + 3), function.read8(at + 4) as usize);
        let offset = function.read(at + 8);
        let place = match bars.get(bar) {
            Some(Bar::Memory(base)) => base + offset as u64,
            Some(Bar::Port(base)) => *base as u64 + offset as u64,
            _ => continue,
        };
        let is_port = matches!(bars.get(bar), Some(Bar::Port(_)));
        match kind {
            // Take the first capability of each kind that we can use: they are in order of preference (4.1.4).
            1 if info.common == 0 && !is_port => info.common = place,
            2 if info.notify == 0 => {
                info.notify = place;
                info.notify_is_port = is_port as u32;
                info.notify_multiplier = function.read(at + 16);
            }
            3 if info.isr == 0 && !is_port => info.isr = place,
            4 if info.config == 0 && !is_port => info.config = place,
            _ => {}
        }
    }
    if let Some(at) = function.capabilities(0x11).next() {
        let table = function.read(at + 4);
        if let Some(Bar::Memory(base)) = bars.get(table as usize & 7) {
            info.msix_capability = at as u32;
            info.msix_size = (function.read(at) >> 16 & 0x7ff) + 1;
            info.msix_table = base + (table & !7) as u64;
        }
    }
    info.interrupt_pin = function.read8(0x3d) as u32;
    if info.common != 0 {
        store(info.common, 0u32);
        let low: u32 = load(info.common + 4);
        store(info.common, 1u32);
        info.offered = low as u64 | (load::<u32>(info.common + 4) as u64) << 32;
    }
    if info.config != 0 {
        info.capacity = load::<u32>(info.config) as u64 | (load::<u32>(info.config + 4) as u64) << 32;
    }
    info
}
