//! The machine that a run is at: another one after each reset with `--on-reset restart`.

use std::sync::{Arc, Mutex};

use crate::host::Locked;
use crate::host::thread::OnDeath;
use crate::machine::{ExitLatch, ExitReason};

/// Where signals and dying threads that outlive a machine end the run, whichever machine is there.
#[derive(Clone)]
pub(super) struct Current(Arc<Mutex<State>>);

struct State {
    latch: ExitLatch,
    /// An end that was asked for by something other than the guest.
    asked: Option<ExitReason>,
}

impl Current {
    pub(super) fn new(latch: ExitLatch) -> Current {
        Current(Arc::new(Mutex::new(State { latch, asked: None })))
    }

    /// Ends the run. Returns whether a machine runs, so that its main loop hears of it.
    pub(super) fn end(&self, reason: ExitReason) -> bool {
        let mut state = self.0.locked();
        state.asked.get_or_insert(reason.clone());
        state.latch.request(reason);
        state.latch.is_running()
    }

    /// Ends the run when a thread dies.
    pub(super) fn on_death(&self) -> OnDeath {
        let current = self.clone();
        Arc::new(move |why| _ = current.end(ExitReason::Failed(why)))
    }

    /// Another machine is there. An end that was asked for when the guest had already reset the former one is asked of it.
    pub(super) fn is_now(&self, latch: ExitLatch) {
        let mut state = self.0.locked();
        if let Some(reason) = &state.asked {
            latch.request(reason.clone());
        }
        state.latch = latch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_comes_while_the_guest_resets_is_the_next_machines() {
        let (first, second) = (ExitLatch::new().unwrap(), ExitLatch::new().unwrap());
        let current = Current::new(first.clone());
        first.request(ExitReason::Reset);
        assert!(!current.end(ExitReason::Signal(15)), "no main loop hears of it");
        current.is_now(second.clone());
        assert_eq!(
            (first.reason(), second.reason()),
            (Some(ExitReason::Reset), Some(ExitReason::Signal(15)))
        );
    }

    #[test]
    fn a_thread_that_outlives_a_machine_ends_the_next_one_by_its_death() {
        let (first, second) = (ExitLatch::new().unwrap(), ExitLatch::new().unwrap());
        let current = Current::new(first.clone());
        let on_death = current.on_death();
        current.is_now(second.clone());
        on_death("thread control died".into());
        assert_eq!(second.reason(), Some(ExitReason::Failed("thread control died".into())));
        assert_eq!(first.reason(), None);
    }
}
