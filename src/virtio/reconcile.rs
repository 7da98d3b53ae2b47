//! Starting and stopping queues: one function that compares what the driver asked for with what runs.

use std::sync::Arc;

use crate::backend::Backend;
use crate::dataplane::QueueSetup;
use crate::host::Locked;

use super::RunningQueue;
use super::common::DRIVER_OK;
use super::device::{State, VirtioBlk};
use super::queue::QueueRegs;

/// The next thing for [`VirtioBlk::reconcile`] to do, without the state lock.
enum Step {
    Stop(Vec<(usize, Box<dyn RunningQueue>)>),
    Start(Vec<(usize, Option<QueueSetup>)>),
    Settled,
}

impl VirtioBlk {
    /// Makes the queues that run match what the driver asked for. Steps are decided under the state lock and done
    /// without it, because they wait for other threads; then it looks again.
    pub(super) fn reconcile(&self) {
        let _turn = self.turn.locked();
        loop {
            let step = self.next_step();
            match step {
                Step::Settled => return,
                Step::Stop(running) => self.stop(running),
                Step::Start(setups) => self.start(setups),
            }
        }
    }

    fn next_step(&self) -> Step {
        let mut state = self.state();
        if state.resetting {
            let none = vec![false; state.slots.len()];
            let armed = state.doorbells.set_live(none);
            self.note(&mut state, armed.err());
            let running =
                state.slots.iter_mut().enumerate().filter_map(|(n, slot)| Some((n, slot.running.take()?)));
            return Step::Stop(running.collect());
        }
        if state.common.status() & DRIVER_OK == 0 {
            return Step::Settled;
        }
        let State { common, slots, .. } = &mut *state;
        let due = slots
            .iter_mut()
            .zip(&common.queues)
            .enumerate()
            .filter(|(_, (slot, queue))| queue.enabled && slot.running.is_none() && !slot.failed);
        let setups: Vec<_> = due
            .map(|(n, (slot, queue))| (n, self.setup(n, queue, common.features(), slot.backend.take())))
            .collect();
        if setups.is_empty() { Step::Settled } else { Step::Start(setups) }
    }

    /// All that queue `n` needs to run; `None` if its registers are invalid or it has no backend.
    fn setup(
        &self,
        n: usize,
        queue: &QueueRegs,
        features: u64,
        backend: Option<Box<dyn Backend>>,
    ) -> Option<QueueSetup> {
        let device_status = self.device_status.clone();
        Some(QueueSetup {
            name: format!("{} queue {n}", self.config.name),
            layout: queue.layout(features)?,
            memory: self.memory.clone(),
            kick: self.kicks[n].event().clone(),
            backend: backend.or_else(|| (self.backends)(n as u16).ok())?,
            interrupt: queue.interrupt.clone(),
            moderation: self.moderation.clone(),
            block: self.block.clone(),
            counters: self.counters[n].clone(),
            broken: Arc::new(move || device_status.fail()),
        })
    }

    fn start(&self, setups: Vec<(usize, Option<QueueSetup>)>) {
        let started: Vec<_> = setups
            .into_iter()
            .map(|(n, setup)| (n, setup.map(|setup| self.loops[n % self.loops.len()].attach(setup))))
            .collect();
        let mut state = self.state();
        for (n, outcome) in started {
            match outcome {
                Some(Ok(running)) => state.slots[n].running = Some(running),
                refused => {
                    state.slots[n].failed = true;
                    let why = match refused {
                        Some(Err(error)) => error.to_string(),
                        _ => "its size or its alignment is not allowed, or its backend is gone".into(),
                    };
                    state.last_error = Some(format!("queue {n} cannot run: {why}"));
                    self.device_status.fail();
                }
            }
        }
        // Only now: the queue hears its kicks, and those from before were looked for by attach.
        let live = state.slots.iter().map(|slot| slot.running.is_some()).collect();
        let armed = state.doorbells.set_live(live);
        self.note(&mut state, armed.err());
    }

    /// Waits for the queues to drain, then finishes the reset.
    fn stop(&self, running: Vec<(usize, Box<dyn RunningQueue>)>) {
        let backends: Vec<_> = running.into_iter().map(|(n, queue)| (n, queue.detach())).collect();
        let mut state = self.state();
        for (n, backend) in backends {
            state.slots[n].backend = backend;
        }
        for slot in &mut state.slots {
            slot.failed = false;
        }
        state.common.reset();
        state.resetting = false;
        self.lines.take_isr();
        self.set_writeback(true);
        // No queue runs, so none can report any more.
        self.device_status.recover();
    }
}

impl Drop for VirtioBlk {
    /// Stops the queues. Not on the thread of a loop that runs one of them.
    fn drop(&mut self) {
        let state = self.state.unlocked_mut();
        let none = vec![false; state.slots.len()];
        let _ = state.doorbells.set_live(none);
        for slot in &mut state.slots {
            if let Some(running) = slot.running.take() {
                running.detach();
            }
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
