//! The marker port: where a guest says that a step begins or ends, and the host's counters are read at that moment.
//!
//! Three bytes at [`layout::MARKER_PORT`]: the step's number, low byte first, then [`BEGIN`] or [`END`], with which it
//! counts. The counters are read on the vCPU's thread before the store is over, so the guest does nothing meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::counts::{Counts, Sources};
use crate::machine::bus::BusDevice;
use crate::machine::layout;

/// Third byte: the step begins.
pub const BEGIN: u8 = 1;
/// Third byte: the step is over.
pub const END: u8 = 2;
/// Step number of "the job has started": no step, a sign of life.
pub const STARTED: u16 = 0xffff;
/// Exits that a mark itself costs, one per byte. Of those of [`BEGIN`] all come before the counters are read, and so do
/// those of [`END`]: what is counted between the two is too much by one mark.
pub const EXITS_PER_MARK: u64 = layout::MARKER_LEN;

/// What a guest said, and the counts of every disk at that moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Step.
    pub step: u16,
    /// [`BEGIN`], [`END`], or whatever the guest wrote.
    pub what: u8,
    /// When.
    pub at: Instant,
    /// Per disk.
    pub counts: Vec<Counts>,
}

/// The port.
pub struct MarkerPort {
    read: Box<dyn Fn() -> Vec<Counts> + Send + Sync>,
    marks: Sender<Mark>,
    step: Mutex<[u8; 2]>,
}

impl MarkerPort {
    /// A port that reads `sources` and reports to `marks`.
    pub fn new(sources: Sources, marks: Sender<Mark>) -> MarkerPort {
        MarkerPort { read: Box::new(move || sources.read()), marks, step: Mutex::default() }
    }

    fn byte(&self, at: u64, value: u8) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        match usize::try_from(at) {
            Ok(at @ 0..2) => step[at] = value,
            Ok(2) => {
                let step = u16::from_le_bytes(*step);
                let mark = Mark { step, what: value, at: Instant::now(), counts: (self.read)() };
                // Nobody listens any more: the run is over.
                let _ = self.marks.send(mark);
            }
            _ => {}
        }
    }
}

impl BusDevice for MarkerPort {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        (offset..).zip(data).for_each(|(at, &value)| self.byte(at, value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_third_byte_reads_the_counters() {
        let (sender, marks) = crossbeam_channel::unbounded();
        let reads = AtomicU64::new(0);
        let read =
            move || vec![Counts { requests: reads.fetch_add(1, Ordering::Relaxed), ..Counts::default() }];
        let port = MarkerPort { read: Box::new(read), marks: sender, step: Mutex::default() };
        port.write(0, &[0x34]);
        port.write(1, &[0x12]);
        assert!(marks.is_empty());
        port.write(2, &[BEGIN]);
        // Wider stores, and stores over the end, are a guest's right.
        port.write(0, &[1, 0, END, 9]);
        port.write(7, &[3]);
        let got: Vec<_> = marks.try_iter().map(|m| (m.step, m.what, m.counts[0].requests)).collect();
        assert_eq!(got, [(0x1234, BEGIN, 0), (1, END, 1)]);
        let mut data = [0; 2];
        port.read(0, &mut data);
        assert_eq!(data, [0xff; 2]);
    }
}
