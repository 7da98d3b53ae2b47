//! The marker register: the guest reports that a step begins or ends, and the host reads its counters at that moment. The
//! guest reads there whether to go on.
//!
//! One 32-bit register at [`layout::EMBEDDER_START`]: the step's number in the low half, [`BEGIN`] or [`END`] in the high
//! one. The counters are read on the vCPU's thread before the store is over, so the guest does nothing meanwhile.

use crossbeam_channel::Sender;

use super::counts::{Counts, Sources};
use crate::host::monotonic_ns;
use crate::machine::bus::BusDevice;
#[cfg(doc)]
use crate::machine::layout;

/// High half: the step begins.
pub const BEGIN: u16 = 1;
/// High half: the step is over.
pub const END: u16 = 2;
/// The step number that reports the start of the job; it is not a step.
pub const STARTED: u16 = 0xffff;
/// Exits that a mark itself costs. The exit of each mark comes before the counters are read, so the difference between
/// [`BEGIN`] and [`END`] includes the one of [`END`].
pub const EXITS_PER_MARK: u64 = 1;

/// One mark, and the counts of every disk at that moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Step.
    pub step: u16,
    /// [`BEGIN`], [`END`], or whatever the guest wrote.
    pub what: u16,
    /// When, by [`monotonic_ns`].
    pub at_ns: u64,
    /// Per disk.
    pub counts: Vec<Counts>,
}

/// The register.
pub struct Marker {
    read: Box<dyn Fn() -> Vec<Counts> + Send + Sync>,
    more: Box<dyn Fn() -> bool + Send + Sync>,
    marks: Sender<Mark>,
}

/// The value that the guest stores when `step` begins or ends.
pub fn value(step: u16, what: u16) -> u32 {
    u32::from(what) << 16 | u32::from(step)
}

impl Marker {
    /// A register that reads `sources` and reports to `marks`. `more` says whether the guest shall take its next step;
    /// the guest waits for the answer.
    pub fn new(
        sources: Sources,
        marks: Sender<Mark>,
        more: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Marker {
        let read = Box::new(move || sources.read());
        Marker { read, more: Box::new(more), marks }
    }
}

impl BusDevice for Marker {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset == 0 => *word = u32::from((self.more)()).to_le_bytes(),
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // Stores of another width are ignored.
        let (0, &[a, b, c, d]) = (offset, data) else { return };
        let (step, what) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let mark = Mark { step, what, at_ns: monotonic_ns(), counts: (self.read)() };
        // Fails only when the run is over and the receiver is gone.
        let _ = self.marks.send(mark);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_store_reads_the_counters() {
        let (sender, marks) = crossbeam_channel::unbounded();
        let reads = AtomicU64::new(0);
        let read = move || vec![Counts { waits: reads.fetch_add(1, Ordering::Relaxed), ..Counts::default() }];
        let more = Box::new(|| true);
        let marker = Marker { read: Box::new(read), more, marks: sender };
        marker.write(0, &value(0x1234, BEGIN).to_le_bytes());
        marker.write(0, &[1, 0]);
        marker.write(2, &[1, 0]);
        marker.write(0, &[0; 8]);
        marker.write(0, &value(1, END).to_le_bytes());
        let got: Vec<_> = marks.try_iter().map(|m| (m.step, m.what, m.counts[0].waits)).collect();
        assert_eq!(got, [(0x1234, BEGIN, 0), (1, END, 1)]);
        let mut data = [0; 2];
        marker.read(0, &mut data);
        assert_eq!(data, [0xff; 2]);
        let mut data = [0; 4];
        marker.read(0, &mut data);
        assert_eq!(data, [1, 0, 0, 0], "the next step is wanted");
    }
}
