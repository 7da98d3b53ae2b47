use io_uring::{opcode, types};

use super::{Backend, Outcome, Request, Submitter, transfer};

/// A backend that does nothing, so that only the cost of the dataplane remains. A read leaves the guest's buffers
/// unchanged; a write is dropped.
pub(super) struct NullBackend {
    size: u64,
    readonly: bool,
    /// How long each request takes; `None`: it is done at once. On the heap, where entries point to it.
    delay: Option<Box<types::Timespec>>,
}

impl NullBackend {
    /// For a disk of `size` bytes; every request takes `delay_us`.
    pub(super) fn new(size: u64, readonly: bool, delay_us: u32) -> NullBackend {
        let (seconds, ns) = (delay_us / 1_000_000, delay_us % 1_000_000 * 1000);
        let delay = (delay_us > 0).then(|| Box::new(types::Timespec::new().sec(seconds.into()).nsec(ns)));
        NullBackend { size, readonly, delay }
    }
}

impl Backend for NullBackend {
    fn start(&mut self, token: u64, request: Request, submitter: &mut dyn Submitter) -> Outcome {
        let checked = transfer::check(&request, self.size, self.readonly);
        let (Some(delay), Ok(())) = (&self.delay, &checked) else { return Outcome::Done(checked) };
        let entry = opcode::Timeout::new(&raw const **delay).build();
        // SAFETY: the entry points to `delay`, which the kernel copies when the entry is submitted. The queue is drained
        // before its backend is dropped, so every entry has been.
        match unsafe { submitter.push(token, entry) } {
            Ok(()) => Outcome::Pending,
            Err(error) => Outcome::Done(Err(error)),
        }
    }

    fn complete(&mut self, _token: u64, result: i32, _submitter: &mut dyn Submitter) -> Outcome {
        match result {
            _ if self.delay.is_none() => super::nothing_in_flight(),
            // How a timeout ends that has run its time.
            e if e == -libc::ETIME => Outcome::Done(Ok(())),
            e => Outcome::Done(Err(std::io::Error::from_raw_os_error(e.saturating_neg()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::testing::{TestRing, range};
    use super::super::{Op, Request};
    use super::*;

    fn flush() -> Request {
        range(Op::Flush, 0, 0)
    }

    #[test]
    fn with_a_delay_requests_complete_after_it_and_side_by_side() {
        const DELAY_US: u32 = 20_000;
        let mut null = NullBackend::new(1 << 20, false, DELAY_US);
        let Some(mut ring) = TestRing::new() else { return };
        let begun = Instant::now();
        for token in 0..8 {
            assert!(matches!(null.start(token, flush(), &mut ring), Outcome::Pending));
        }
        let done = ring.wait(&mut null, 8);
        assert!(begun.elapsed() >= Duration::from_micros(DELAY_US.into()));
        assert!(done.len() == 8 && done.iter().all(|(_, result)| result.is_ok()));
        let beyond = range(Op::Discard, 1 << 20, 512);
        assert!(matches!(null.start(9, beyond, &mut ring), Outcome::Done(Err(_))), "at once");
        assert!(matches!(null.complete(9, -libc::ECANCELED, &mut ring), Outcome::Done(Err(_))));
    }
}
