//! Configuration space (ports CF8/CFC or ECAM), capabilities, and addresses for BARs that have none.

use crate::{control, cpu, global::Global};

/// A PCI function: bus << 8 | device << 3 | function.
#[derive(Clone, Copy)]
pub struct Function(pub u16);

pub const COMMAND: u16 = 4;
pub const COMMAND_IO: u32 = 1;
pub const COMMAND_MEMORY: u32 = 2;
pub const COMMAND_MASTER: u32 = 4;
pub const COMMAND_INTX_OFF: u32 = 1 << 10;

impl Function {
    /// Returns the aligned doubleword that contains `offset`.
    pub fn read(self, offset: u16) -> u32 {
        match control::read().ecam {
            0 => {
                cpu::out32(0xcf8, self.cf8(offset));
                cpu::in32(0xcfc)
            }
            ecam => cpu::load(ecam + ((self.0 as u64) << 12) + (offset & !3) as u64),
        }
    }

    pub fn write(self, offset: u16, value: u32) {
        match control::read().ecam {
            0 => {
                cpu::out32(0xcf8, self.cf8(offset));
                cpu::out32(0xcfc, value);
            }
            ecam => cpu::store(ecam + ((self.0 as u64) << 12) + (offset & !3) as u64, value),
        }
    }

    fn cf8(self, offset: u16) -> u32 {
        1 << 31 | (self.0 as u32) << 8 | (offset & 0xfc) as u32
    }

    pub fn read8(self, offset: u16) -> u8 {
        (self.read(offset) >> (8 * (offset & 3))) as u8
    }

    /// Changes the command register. Zeros are written to the status half, which clears nothing.
    pub fn command(self, set: u32, clear: u32) {
        let now = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, now & !clear | set);
    }

    /// Returns the offsets of the capabilities with this identifier, in list order.
    pub fn capabilities(self, id: u8) -> impl Iterator<Item = u16> {
        let present = self.read(COMMAND) >> 16 & 1 << 4 != 0;
        let mut at = if present { self.read8(0x34) & !3 } else { 0 } as u16;
        // A list of more than 48 entries is a loop.
        core::iter::from_fn(move || {
            if at < 0x40 {
                return None;
            }
            let here = (at, self.read(at));
            at = (here.1 >> 8 & 0xfc) as u16;
            Some(here)
        })
        .take(48)
        .filter(move |(_, word)| *word as u8 == id)
        .map(|(at, _)| at)
    }
}

/// Where a BAR is.
#[derive(Clone, Copy, PartialEq)]
pub enum Bar {
    None,
    Memory(u64),
    Port(u16),
}

/// The next free addresses: memory, I/O.
static WINDOW: Global<(u64, u32)> = Global::new((0, 0xc000));

/// Gives addresses to the BARs that are at 0 or above 4 GiB (the page tables end there). Returns where all six are.
pub fn place_bars(function: Function) -> [Bar; 6] {
    let mut bars = [Bar::None; 6];
    let mut i = 0;
    function.command(0, COMMAND_IO | COMMAND_MEMORY);
    while i < 6 {
        let offset = 0x10 + 4 * i as u16;
        let low = function.read(offset);
        let wide = low & 7 == 4 && i < 5;
        if low & 1 == 1 {
            let mut at = low & 0xfffc;
            if at == 0 {
                at = take_ports(size(function, offset, !3) & 0xffff);
                function.write(offset, at);
            }
            bars[i] = Bar::Port(at as u16);
        } else {
            let high = if wide { function.read(offset + 4) } else { 0 };
            let mut at = (low & !15) as u64;
            if at == 0 || high != 0 {
                at = take_memory(size(function, offset, !15) as u64);
                if at != 0 {
                    function.write(offset, at as u32);
                    if wide {
                        function.write(offset + 4, 0);
                    }
                }
            }
            if at != 0 {
                bars[i] = Bar::Memory(at);
            }
        }
        i += if wide { 2 } else { 1 };
    }
    function.command(COMMAND_IO | COMMAND_MEMORY, 0);
    bars
}

/// Returns the BAR's size in bytes, or 0 if there is none. Reads only the low half: no BAR here is larger than 4 GiB.
pub fn size(function: Function, offset: u16, mask: u32) -> u32 {
    function.write(offset, !0);
    let bits = function.read(offset) & mask;
    bits & bits.wrapping_neg()
}

fn take_memory(size: u64) -> u64 {
    if size == 0 {
        return 0;
    }
    // SAFETY: only CPU 0 places BARs, before it takes jobs.
    let (next, _) = unsafe { &mut *WINDOW.get() };
    if *next == 0 {
        *next = match control::read().bar_window {
            0 => 0xd000_0000,
            window => window,
        };
    }
    // At least a page apart, so that no two BARs share a page.
    let size = size.max(0x1000);
    let at = next.next_multiple_of(size);
    *next = at + size;
    at
}

fn take_ports(size: u32) -> u32 {
    // SAFETY: as in take_memory.
    let (_, next) = unsafe { &mut *WINDOW.get() };
    let at = next.next_multiple_of(size.max(4));
    *next = at + size.max(4);
    at
}
