//! Collects the guest's marks while it works, shows progress, and stops a guest that hangs.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::counts::Counts;
use super::marker::{BEGIN, END, Mark, STARTED};
use crate::bench::progress::{Progress, Shown};

/// The expected marks.
pub struct MarkListener {
    /// The name of each step: job and path.
    pub labels: Vec<String>,
    /// How long a guest may be silent, from its start to the first mark and between two marks.
    pub max_silence: Duration,
    /// How progress is shown.
    pub progress: Progress,
}

/// The received marks.
#[derive(Debug)]
pub struct Heard {
    /// The guest's marks, in order.
    pub marks: Vec<Mark>,
    /// Whether the guest was stopped because it was silent for too long.
    pub silent: bool,
}

impl MarkListener {
    /// Listens until the other side of `marks` is gone; calls `heard` with all marks after each one, and `give_up` once, if
    /// the guest is silent for too long.
    pub fn listen(&self, marks: &Receiver<Mark>, heard: impl Fn(&[Mark]), give_up: impl Fn()) -> Heard {
        let mut shown = Shown::new(self.progress, self.labels.len());
        let mut seen: Vec<Mark> = Vec::new();
        let mut silent = false;
        let mut last = Instant::now();
        loop {
            // The bar shows elapsed time; one update per second is enough.
            match marks.recv_timeout(Duration::from_secs(1)) {
                Ok(mark) => {
                    last = Instant::now();
                    self.show(&mut shown, &mark, seen.last());
                    seen.push(mark);
                    heard(&seen);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    shown.tick();
                    if !silent && last.elapsed() > self.max_silence {
                        silent = true;
                        give_up();
                    }
                }
            }
        }
        shown.finish();
        Heard { marks: seen, silent }
    }

    fn show(&self, shown: &mut Shown, mark: &Mark, before: Option<&Mark>) {
        let label = |step: u16| self.labels.get(usize::from(step)).map_or("", String::as_str);
        match (mark.step, mark.what) {
            (STARTED, _) => shown.note("the guest is up"),
            (step, BEGIN) => shown.begin(step.into(), label(step)),
            (step, END) => {
                let begin = before.filter(|before| before.step == step && before.what == BEGIN);
                shown.end(step.into(), label(step), begin.map(|begin| done(begin, mark)));
            }
            _ => {}
        }
    }
}

/// The counts between two marks, over all disks. Only the driver of a passed-through disk can count its requests.
fn done(begin: &Mark, end: &Mark) -> String {
    let mut sum = Counts::default();
    begin.counts.iter().zip(&end.counts).for_each(|(begin, end)| sum.add(&end.since(begin)));
    match (sum.disk.requests, sum.passed.host) {
        (0, interrupts @ 1..) => format!("{interrupts} interrupts of the device"),
        (requests, _) => format!("{requests} requests"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::bench::linux::counts::Passed;

    fn mark(step: u16, what: u16) -> Mark {
        Mark { step, what, at_ns: 0, counts: vec![Counts::default()] }
    }

    #[test]
    fn marks_are_collected_until_the_machine_is_gone() {
        let (sender, marks) = crossbeam_channel::unbounded();
        for (step, what) in [(STARTED, BEGIN), (0, BEGIN), (0, END), (77, END), (3, 9)] {
            sender.send(mark(step, what)).unwrap();
        }
        drop(sender);
        let watch =
            MarkListener { labels: vec!["a".into()], max_silence: Duration::MAX, progress: Progress::Off };
        let watched = watch.listen(&marks, |_| {}, || panic!("it has ended"));
        assert_eq!((watched.marks.len(), watched.silent), (5, false));
    }

    #[test]
    fn a_passed_through_disk_shows_its_interrupts() {
        let mark = |requests, host| {
            let mut counts = vec![Counts::default(); 2];
            counts[0].disk.requests = requests;
            counts[1].passed = Passed { host, through_vmm: 0 };
            Mark { step: 0, what: BEGIN, at_ns: 0, counts }
        };
        assert_eq!(done(&mark(5, 3), &mark(9, 3)), "4 requests");
        assert_eq!(done(&mark(5, 3), &mark(5, 10)), "7 interrupts of the device");
    }

    #[test]
    fn a_silent_guest_is_given_up_once() {
        let (sender, marks) = crossbeam_channel::unbounded();
        let sender = Cell::new(Some(sender));
        let watch = MarkListener { labels: vec![], max_silence: Duration::ZERO, progress: Progress::Off };
        // Giving up ends the VM, which drops the sender.
        let watched = watch.listen(&marks, |_| {}, || drop(sender.take().expect("asked once")));
        assert!(watched.silent && watched.marks.is_empty());
    }
}
