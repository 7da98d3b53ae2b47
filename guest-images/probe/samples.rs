//! The samples of one CPU's block.

use crate::abi::{MAX_SAMPLES, SAMPLE_STRIDE, SAMPLES, Sample};
use crate::cpu;

pub struct Samples {
    base: u64,
    room: u32,
    /// Samples written so far.
    pub count: u32,
}

/// Returns the difference of two TSCs, in the width of a sample's field.
fn ticks(from: u64, to: u64) -> u32 {
    to.saturating_sub(from).min(u32::MAX as u64) as u32
}

impl Samples {
    /// Keeps at most `most` samples; 0 means as many as fit.
    pub fn new(cpu: usize, most: u32) -> Self {
        let room = if most == 0 { MAX_SAMPLES as u32 } else { most.min(MAX_SAMPLES as u32) };
        Self { base: SAMPLES + cpu as u64 * SAMPLE_STRIDE, room, count: 0 }
    }

    /// Adds a sample. The times are TSCs; `handler` is 0 if the handler read none.
    #[inline(always)]
    pub fn add(&mut self, start: u64, kicked: u64, handler: u64, seen: u64, done: u64) {
        if self.count < self.room {
            let sample = Sample {
                start,
                kicked: ticks(start, kicked),
                handler: ticks(start, handler),
                seen: ticks(start, seen),
                done: ticks(start, done),
            };
            cpu::store(self.base + self.count as u64 * Sample::SIZE as u64, sample);
            self.count += 1;
        }
    }

    /// Returns the samples of a CPU's finished block.
    pub fn of(cpu: usize, count: u32) -> &'static mut [Sample] {
        let at = (SAMPLES + cpu as u64 * SAMPLE_STRIDE) as *mut Sample;
        // SAFETY: the area is ours, a finished block no longer writes to it, and it wrote `count` samples (<= MAX_SAMPLES).
        unsafe { core::slice::from_raw_parts_mut(at, (count as usize).min(MAX_SAMPLES)) }
    }
}
