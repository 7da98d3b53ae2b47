use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::host::Locked;
use crate::kvm::{KvmError, MemoryRange, MemorySlot, MemorySlots};
use crate::pci::{Bar, BarKind, BarOffset, Bars, ConfigSpace, Msix, Space, Window};
use crate::vfio::kernel::device_fd::{DeviceFd, Mapping};
use crate::vfio::kernel::region::{Area, Region};

const PAGE: u64 = 4096;
const PREFETCHABLE: u32 = 1 << 3;

/// The device's BARs, laid out in the guest's config space.
pub fn lay_out(fd: &dyn DeviceFd, config: &mut ConfigSpace) -> Bars {
    let mut bars: Vec<(Bar, u32)> = Vec::new();
    for region in fd.regions().iter().take(6).filter(|region| region.size > 0) {
        let index = region.index as u8;
        let mut register = [0; 4];
        let read =
            fd.read(crate::vfio::device::config::CONFIG_REGION, 0x10 + 4 * u64::from(index), &mut register);
        let register = u32::from_le_bytes(register);
        let kind = match register {
            _ if read.is_err() => continue,
            word if word & 1 != 0 => BarKind::Io,
            word if word & 6 == 4 => BarKind::Memory64,
            _ => BarKind::Memory32,
        };
        // The upper half of a 64-bit BAR is not a BAR, and BAR 5 has no upper half.
        let in_upper_half =
            bars.last().is_some_and(|(b, _)| b.kind == BarKind::Memory64 && b.index + 1 == index);
        if in_upper_half || kind == BarKind::Memory64 && index == 5 {
            continue;
        }
        let prefetchable = if kind == BarKind::Io { 0 } else { register & PREFETCHABLE };
        bars.push((Bar { index, kind, len: region.size }, prefetchable));
    }
    let laid: Vec<_> = bars.iter().map(|&(bar, _)| bar).collect();
    let laid = Bars::new(config, &laid);
    for (bar, prefetchable) in bars {
        // A read-only bit of the register, next to its type.
        let at = 0x10 + 4 * usize::from(bar.index);
        let word = config.u32(at) | prefetchable;
        config.set(at, &word.to_le_bytes());
    }
    laid
}

/// The parts of a region that the VMM emulates: the pages of the MSI-X table and of the pending bits.
#[derive(Clone, Copy, Debug)]
pub struct Trapped {
    /// The table.
    pub table: BarOffset,
    /// The pending bits.
    pub pba: BarOffset,
    /// Vectors.
    pub vectors: u16,
}

impl Trapped {
    /// Byte ranges in BAR `bar`.
    pub fn table_in(&self, bar: u8) -> Option<Area> {
        let (offset, len) = (self.table.offset.into(), Msix::table_len(self.vectors));
        (self.table.bar == bar).then_some(Area { offset, len })
    }

    /// See [`Trapped::table_in`].
    pub fn pba_in(&self, bar: u8) -> Option<Area> {
        let (offset, len) = (self.pba.offset.into(), Msix::pba_len(self.vectors));
        (self.pba.bar == bar).then_some(Area { offset, len })
    }
}

/// The whole pages of `region` that the guest may access directly.
pub fn direct(region: &Region, trapped: Option<Trapped>) -> Vec<Area> {
    let bar = region.index as u8;
    let mut areas = if region.mappable() { region.areas.clone() } else { Vec::new() };
    let holes = trapped.iter().flat_map(|t| [t.table_in(bar), t.pba_in(bar)]).flatten();
    for hole in holes {
        let (from, to) = (hole.offset / PAGE * PAGE, hole.end().next_multiple_of(PAGE));
        areas = areas
            .iter()
            .flat_map(|area| {
                let before = (area.offset, area.end().min(from));
                let after = (area.offset.max(to), area.end());
                [before, after]
            })
            .filter(|(start, end)| start < end)
            .map(|(start, end)| Area { offset: start, len: end - start })
            .collect();
    }
    let whole_pages = areas.iter().map(|area| {
        let (start, end) = (area.offset.next_multiple_of(PAGE), area.end() / PAGE * PAGE);
        Area { offset: start, len: end.saturating_sub(start) }
    });
    whole_pages.filter(|area| area.len > 0).collect()
}

/// The device's memory, mapped in this process, and in the guest at the present addresses of its BARs.
#[derive(Debug)]
pub struct MappedBars {
    slots: Arc<MemorySlots>,
    // Declared before the mappings, so dropped before them: a slot must be deleted before its memory is unmapped.
    live: Mutex<BTreeMap<u8, Vec<MemorySlot>>>,
    mappings: Vec<(u8, Area, Mapping)>,
}

impl MappedBars {
    /// Maps in this process what the guest may access directly.
    ///
    /// # Errors
    /// The kernel refused a mapping that it reported as possible: BAR number and errno.
    pub fn new(
        fd: &dyn DeviceFd,
        trapped: Option<Trapped>,
        slots: Arc<MemorySlots>,
    ) -> Result<MappedBars, (u8, io::Error)> {
        let mut mappings = Vec::new();
        for region in fd.regions().iter().take(6) {
            let bar = region.index as u8;
            for area in direct(region, trapped) {
                let mapping = fd.map(region.index, area).map_err(|error| (bar, error))?;
                mappings.push((bar, area, mapping));
            }
        }
        Ok(MappedBars { slots, live: Mutex::default(), mappings })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u8, Vec<MemorySlot>>> {
        self.live.locked()
    }

    /// Maps the BAR into the guest at `window`.
    ///
    /// # Errors
    /// KVM refused a slot. Accesses to that part exit to the VMM, which performs them.
    pub fn map_into_guest(&self, window: Window) -> Result<(), KvmError> {
        if window.space != Space::Mmio || !window.base.is_multiple_of(PAGE) {
            return Ok(());
        }
        let parts = self.mappings.iter().filter(|(bar, ..)| *bar == window.bar);
        let made: Result<Vec<_>, _> = parts
            .map(|(_, area, mapping)| {
                let range = MemoryRange {
                    guest: window.base + area.offset,
                    len: mapping.len(),
                    host: mapping.address(),
                };
                // SAFETY: the mapping lives in self, which drops the slots first; it is device memory, to which no Rust
                // reference exists.
                unsafe { self.slots.map(range) }
            })
            .collect();
        self.lock().insert(window.bar, made?);
        Ok(())
    }

    /// Removes the BAR from the guest.
    pub fn unmap(&self, bar: u8) {
        self.lock().remove(&bar);
    }

    /// What the guest accesses directly at present: (BAR, range).
    pub fn shown(&self) -> Vec<(u8, MemoryRange)> {
        let live = self.lock();
        live.iter().flat_map(|(bar, slots)| slots.iter().map(|slot| (*bar, slot.range()))).collect()
    }
}

#[cfg(test)]
#[path = "bars_tests.rs"]
mod tests;
