//! The host bridge: finds devices on bus 0, forwards config accesses to them, and makes the buses match the BARs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use tracing::info;

use super::bus::{Bus, BusDevice};
use super::pci_bars::{self, BarSpace, PciFull, SLOTS};
use crate::host::events::hex;
use crate::host::{Locked, LockedRw};
use crate::pci::{PciDevice, Space, Window};

/// Bus 0: the host bridge in slot 0, and devices with one function each in slots 1 to 31.
pub struct PciRoot {
    devices: RwLock<[Option<Arc<dyn PciDevice>>; SLOTS]>,
    /// The windows that are on a bus now, by slot. One lock for all of them orders the map and unmap calls.
    mapped: Mutex<[Vec<Window>; SLOTS]>,
    mmio: Arc<Bus>,
    pio: Arc<Bus>,
    /// CONFIG_ADDRESS, the last value stored to port 0xCF8.
    address: AtomicU32,
    /// The address space that is left for BARs at start.
    space: Mutex<BarSpace>,
}

impl PciRoot {
    /// Returns a bus without devices. The BARs of its devices will appear on `mmio` and `pio`.
    pub fn new(mmio: Arc<Bus>, pio: Arc<Bus>) -> Arc<PciRoot> {
        Arc::new(PciRoot {
            devices: RwLock::default(),
            mapped: Mutex::default(),
            mmio,
            pio,
            address: AtomicU32::new(0),
            space: Mutex::new(BarSpace::whole()),
        })
    }

    fn mapped(&self) -> MutexGuard<'_, [Vec<Window>; SLOTS]> {
        self.mapped.locked()
    }

    fn device(&self, slot: usize) -> Option<Arc<dyn PciDevice>> {
        self.devices.reading().get(slot)?.clone()
    }

    /// Adds `device` in the lowest free slot, gives its BARs addresses and switches their decoding on, as firmware
    /// does. Returns the slot.
    ///
    /// # Errors
    /// `PciFull`: all slots are taken, or a BAR window is full.
    pub fn add(&self, device: Arc<dyn PciDevice>) -> Result<u8, PciFull> {
        let slot = self.free_slot()?;
        self.devices.writing()[usize::from(slot)] = Some(device.clone());
        let mut space = self.space.locked();
        pci_bars::assign(&*device, slot, &mut space)?;
        self.reconcile();
        Ok(slot)
    }

    /// Returns the lowest free slot.
    ///
    /// # Errors
    /// `PciFull::Slots`.
    pub fn free_slot(&self) -> Result<u8, PciFull> {
        let devices = self.devices.reading();
        (1..SLOTS).find(|&s| devices[s].is_none()).map(|s| s as u8).ok_or(PciFull::Slots)
    }

    /// Returns the devices with their slots.
    pub fn devices(&self) -> Vec<(u8, Arc<dyn PciDevice>)> {
        let devices = self.devices.reading();
        devices.iter().enumerate().filter_map(|(s, d)| Some((s as u8, d.clone()?))).collect()
    }

    /// Makes the buses match what the devices decode now. A window that overlaps another one, or a device of the
    /// machine, is left out until the other is gone. So if a guest lets BARs overlap, accesses reach the first one.
    fn reconcile(&self) {
        let mut mapped = self.mapped();
        let wanted: Vec<_> =
            self.devices().into_iter().map(|(slot, device)| (slot, device.windows(), device)).collect();
        // Remove all old windows before any new one is added, because two devices may swap their addresses.
        for (slot, windows, device) in &wanted {
            mapped[usize::from(*slot)].retain(|window| {
                let keep = windows.contains(window);
                if !keep {
                    self.bus(window.space).remove(window.base);
                    info!(target: "pci", slot, bar = window.bar, base = hex(window.base), "BAR unmapped");
                    device.bar_unmapped(*window);
                }
                keep
            });
        }
        for (slot, windows, device) in &wanted {
            let mapped = &mut mapped[usize::from(*slot)];
            for window in windows {
                let bar = Arc::new(Bar { device: device.clone(), bar: window.bar });
                if !mapped.contains(window)
                    && in_reach(window)
                    && self.bus(window.space).insert(window.base, window.len, bar).is_ok()
                {
                    mapped.push(*window);
                    let (base, len) = (hex(window.base), hex(window.len));
                    info!(target: "pci", slot, bar = window.bar, space = ?window.space, base, len, "BAR mapped");
                    device.bar_mapped(*window);
                }
            }
        }
    }

    fn bus(&self, space: Space) -> &Bus {
        match space {
            Space::Mmio => &self.mmio,
            Space::Pio => &self.pio,
        }
    }

    /// Reads config space of function 0 of `slot`. A slot without a device reads as all ones.
    pub fn config_read(&self, slot: usize, offset: u16, data: &mut [u8]) {
        if slot == 0 {
            return host_bridge_read(offset, data);
        }
        data.fill(0xff);
        let Some(device) = self.device(slot) else { return };
        for (at, part) in natural(offset, data.len()) {
            device.config_read(at, &mut data[part]);
        }
    }

    /// Writes config space, then moves the windows that changed by it.
    pub fn config_write(&self, slot: usize, offset: u16, data: &[u8]) {
        let Some(device) = self.device(slot) else { return };
        for (at, part) in natural(offset, data.len()) {
            device.config_write(at, &data[part]);
        }
        self.reconcile();
    }

    /// Returns the slot and the register that CONFIG_ADDRESS selects. `None` if it is disabled or selects another bus
    /// or function.
    fn target(&self) -> Option<(usize, u16)> {
        let address = self.address.load(Ordering::Acquire);
        let here = address & 0x80ff_0700 == 0x8000_0000;
        here.then_some(((address >> 11 & 0x1f) as usize, (address & 0xfc) as u16))
    }
}

/// Whether the window is within the bus. A guest may set the upper bits of an I/O BAR, but ports end at 0xFFFF.
fn in_reach(window: &Window) -> bool {
    window.space == Space::Mmio || window.base.saturating_add(window.len) <= 0x1_0000
}

/// Splits an access into naturally aligned ones of 4, 2 or 1 bytes, up to the end of config space. Returns config
/// offsets and ranges of the data.
fn natural(offset: u16, len: usize) -> impl Iterator<Item = (u16, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset.checked_add(u16::try_from(done).ok()?).filter(|&at| at < 4096)?;
        let size = [4, 2, 1].into_iter().find(|&n| usize::from(at) % n == 0 && done + n <= len)?;
        done += size;
        Some((at, done - size..done))
    })
}

/// Reads the config space of the bridge in slot 0. It only has an identity, "PCIe host bridge", and is read-only.
fn host_bridge_read(offset: u16, data: &mut [u8]) {
    /// Vendor and device (Red Hat's PCIe host bridge), command and status, revision and class 0x060000.
    const HEADER: [u32; 3] = [0x0008_1b36, 0, 0x0600_0000];
    for (i, byte) in data.iter_mut().enumerate() {
        let at = usize::from(offset) + i;
        *byte = HEADER.get(at / 4).map_or(0, |word| word.to_le_bytes()[at % 4]);
    }
}

/// A BAR as a device on a bus.
struct Bar {
    device: Arc<dyn PciDevice>,
    bar: u8,
}

impl BusDevice for Bar {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.device.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.device.bar_write(self.bar, offset, data);
    }
}

/// Config space as memory. The address selects slot, function and register (PCI Express base specification, 7.2.2).
pub struct Ecam(pub Arc<PciRoot>);

impl Ecam {
    fn target(offset: u64) -> Option<(usize, u16)> {
        let (slot, function, register) = (offset >> 15, offset >> 12 & 7, offset & 0xfff);
        (slot < SLOTS as u64 && function == 0).then_some((slot as usize, register as u16))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Ecam::target(offset) {
            Some((slot, register)) => self.0.config_read(slot, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((slot, register)) = Ecam::target(offset) {
            self.0.config_write(slot, register, data);
        }
    }
}

/// CONFIG_ADDRESS and CONFIG_DATA, ports 0xCF8 to 0xCFF (PCI Local Bus 3.0, 3.2.2.3.2).
pub struct ConfigPorts {
    /// The bus whose config space the ports access.
    pub root: Arc<PciRoot>,
    /// Called on a reset through the reset control register, port 0xCF9, which lies in this range.
    pub reset: Box<dyn Fn() + Send + Sync>,
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.root.address.load(Ordering::Acquire).to_le_bytes()),
            (4..8, 1..=4) => match self.root.target() {
                Some((slot, register)) => self.root.config_read(slot, register + offset as u16 - 4, data),
                None => data.fill(0xff),
            },
            (1, 1) => data[0] = 0,
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => {
                self.root.address.store(u32::from_le_bytes([a, b, c, d]), Ordering::Release)
            }
            (1, &[value]) if value & 4 != 0 => (self.reset)(),
            (4..8, _) => {
                if let Some((slot, register)) = self.root.target() {
                    self.root.config_write(slot, register + offset as u16 - 4, data);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "pci_root_tests.rs"]
mod tests;
