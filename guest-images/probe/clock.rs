//! Converts TSC ticks to time. Only text mode needs it: a host that reads memory converts by itself.

use crate::{cmdline, cpu, global::Global};

static KHZ: Global<u64> = Global::new(0);

/// Finds the ticks per millisecond: `tsc_khz=` of the command line, or a measurement against the 8254 (80 ms).
pub fn find() {
    let given = cmdline::number("tsc_khz", 0);
    // SAFETY: CPU 0 runs this in text mode, before anything reads it.
    unsafe { *KHZ.get() = if given != 0 { given } else { measure() } };
}

pub fn khz() -> u64 {
    // SAFETY: only read after `find`.
    unsafe { (*KHZ.get()).max(1) }
}

pub fn ticks_of_us(us: u64) -> u64 {
    us.saturating_mul(khz()) / 1000
}

pub fn ns(ticks: u64) -> u64 {
    (ticks as u128 * 1_000_000 / khz() as u128) as u64
}

/// The TSC frequency without an 8254: 1 GHz, so ticks count as nanoseconds.
const NO_TIMER: u64 = 1_000_000;

/// Returns the lowest of a few measurements: preemption by the host makes a measurement longer, never shorter.
fn measure() -> u64 {
    (0..4).map(|_| measure_once()).min().unwrap_or(0)
}

/// Channel 2 of the 8254 counts 23864 periods of 1.193182 MHz, which is 20 ms. Its output is bit 5 of port 0x61.
fn measure_once() -> u64 {
    const COUNT: u16 = 23_864;
    let gate = cpu::in8(0x61) & !2;
    cpu::out8(0x61, gate & !1);
    cpu::out8(0x43, 0xb0);
    cpu::out8(0x42, COUNT as u8);
    cpu::out8(0x42, (COUNT >> 8) as u8);
    cpu::out8(0x61, gate | 1);
    let from = cpu::tsc();
    if cpu::in8(0x61) & 0x20 != 0 {
        return NO_TIMER;
    }
    while cpu::in8(0x61) & 0x20 == 0 {
        if cpu::tsc().wrapping_sub(from) > 1 << 30 {
            return NO_TIMER;
        }
    }
    cpu::tsc().wrapping_sub(from) / 20
}
