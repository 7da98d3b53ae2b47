use super::config::{BARS, Command, ConfigSpace};
use super::{Space, Window};

/// The end of the widest physical address space of an x86 CPU, 52 bits. A 64-bit BAR whose upper half is being sized
/// lies above it.
const PHYSICAL_TOP: u64 = 1 << 52;

/// What a BAR decodes, and the width of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory at any address. The BAR also occupies the next BAR register.
    Memory64,
    /// I/O ports.
    Io,
}

/// One BAR of a function.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Register number, 0 to 5 (0 to 4 for [`BarKind::Memory64`]).
    pub index: u8,
    /// What the BAR decodes.
    pub kind: BarKind,
    /// Length in bytes, rounded up to a power of two of at least 16 (memory) or 4 (I/O).
    pub len: u64,
}

/// The BARs of a function. The [`ConfigSpace`] holds their addresses. Its write mask implements sizing: a guest that
/// stores all ones reads the mask back (PCI Local Bus 3.0, 6.2.5.1).
#[derive(Clone, Debug, Default)]
pub struct Bars(Vec<Bar>);

impl Bars {
    /// Sets up the registers of `bars` in `config`, without addresses.
    ///
    /// # Panics
    /// If two BARs use the same register, or a register does not exist. Only the device's code chooses BARs, never a
    /// guest.
    pub fn new(config: &mut ConfigSpace, bars: &[Bar]) -> Bars {
        let mut taken = [false; 6];
        let bars = bars.iter().map(|&bar| {
            let smallest = if bar.kind == BarKind::Io { 4 } else { 16 };
            let bar = Bar { len: bar.len.max(smallest).next_power_of_two(), ..bar };
            let registers = if bar.kind == BarKind::Memory64 { 2 } else { 1 };
            for taken in &mut taken[usize::from(bar.index)..][..registers] {
                assert!(!std::mem::replace(taken, true), "{bar:?} overlaps another");
            }
            let (kind_bits, mask) = (bar.kind_bits(), !(bar.len - 1));
            let at = BARS + 4 * usize::from(bar.index);
            config.set(at, &u32::to_le_bytes(kind_bits));
            config.allow(at, &mask.to_le_bytes()[..4 * registers]);
            bar
        });
        Bars(bars.collect())
    }

    /// Returns the windows that `config` decodes now. A BAR at address 0 or at the top of its address space decodes
    /// nothing (it is there while the guest sizes it). Neither does an I/O BAR above port 0xffff.
    pub fn windows(&self, config: &ConfigSpace) -> Vec<Window> {
        self.0.iter().filter_map(|bar| bar.window(config)).collect()
    }

    /// Returns all BARs.
    pub fn all(&self) -> &[Bar] {
        &self.0
    }
}

impl Bar {
    fn kind_bits(&self) -> u32 {
        match self.kind {
            BarKind::Memory32 => 0b000,
            BarKind::Memory64 => 0b100,
            BarKind::Io => 0b01,
        }
    }

    fn window(&self, config: &ConfigSpace) -> Option<Window> {
        let (space, enable, top) = match self.kind {
            BarKind::Memory32 => (Space::Mmio, Command::MEMORY, u64::from(u32::MAX)),
            BarKind::Memory64 => (Space::Mmio, Command::MEMORY, PHYSICAL_TOP),
            BarKind::Io => (Space::Pio, Command::IO, u64::from(u16::MAX)),
        };
        if !config.command().contains(enable) {
            return None;
        }
        let at = BARS + 4 * usize::from(self.index);
        let mut base = u64::from(config.u32(at));
        if self.kind == BarKind::Memory64 {
            base |= u64::from(config.u32(at + 4)) << 32;
        }
        base &= !(self.len - 1);
        let last = base.checked_add(self.len - 1)?;
        // Only while its lower half is being sized does a 64-bit BAR end at 4 GiB.
        let sizing = last == u64::from(u32::MAX);
        (base != 0 && last < top && !sizing).then_some(Window { bar: self.index, space, base, len: self.len })
    }
}

#[cfg(test)]
#[path = "bar_tests.rs"]
mod tests;
