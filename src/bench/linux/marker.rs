//! The marker register: the guest reports that a step begins or ends, and the host reads its counters at that moment.
//!
//! One 32-bit register at [`layout::MARKER_START`]: the step's number in the low half, [`BEGIN`] or [`END`] in the high
//! one. The counters are read on the vCPU's thread before the store is over, so the guest does nothing meanwhile.

use crossbeam_channel::Sender;

use super::counts::{Counts, Sources};
use crate::machine::bus::BusDevice;
#[cfg(doc)]
use crate::machine::layout;

/// High half: the step begins.
pub const BEGIN: u16 = 1;
/// High half: the step is over.
pub const END: u16 = 2;
/// Step number of "the job has started": a sign of life, not a step.
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
    /// Per disk.
    pub counts: Vec<Counts>,
}

/// The register.
pub struct Marker {
    /// What comes before a step: the turns of others.
    before: Box<dyn Fn(u16) + Send + Sync>,
    read: Box<dyn Fn() -> Vec<Counts> + Send + Sync>,
    marks: Sender<Mark>,
}

/// What the guest stores to say that `step` begins or ends.
pub fn value(step: u16, what: u16) -> u32 {
    u32::from(what) << 16 | u32::from(step)
}

impl Marker {
    /// A register that reads `sources` and reports to `marks`. Before a step begins, `before` is called with its number, and
    /// the guest's store waits for that.
    pub fn new(
        sources: Sources,
        marks: Sender<Mark>,
        before: impl Fn(u16) + Send + Sync + 'static,
    ) -> Marker {
        Marker { before: Box::new(before), read: Box::new(move || sources.read()), marks }
    }
}

impl BusDevice for Marker {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // A guest may store other widths; they are ignored.
        let (0, &[a, b, c, d]) = (offset, data) else { return };
        let (step, what) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if what == BEGIN && step != STARTED {
            (self.before)(step);
        }
        let mark = Mark { step, what, counts: (self.read)() };
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
        let before = |step| assert_eq!(step, 0x1234, "only before a step that begins");
        let marker = Marker { before: Box::new(before), read: Box::new(read), marks: sender };
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
    }
}
