//! Starting and stopping queues: one function compares what the driver asked for with what runs.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_NOTIFICATION_DATA;

use tracing::info;

use crate::backend::Backend;
use crate::dataplane::{QueueSetup, RunningQueue};
use crate::host::Locked;

use super::common::DRIVER_OK;
use super::device::{State, VirtioBlk};
use super::queue::QueueRegs;

/// What [`VirtioBlk::reconcile`] does next, without the state lock.
enum Step {
    /// For a reset of the device.
    Stop(Vec<(usize, Box<dyn RunningQueue>)>),
    /// For resets of these queues; `None`: it does not run.
    StopQueues(Vec<(usize, Option<Box<dyn RunningQueue>>)>),
    Start(Vec<(usize, Result<QueueSetup, String>)>),
    Settled,
}

impl VirtioBlk {
    /// Makes the queues that run match what the driver asked for.
    ///
    /// A step is decided under the state lock and done without it. Starting and stopping a queue waits for the thread
    /// that runs it; that thread may be the main loop, which takes the state lock to serve `inspect`, and each would
    /// wait for the other. The driver may have written again meanwhile: so after each step the state is compared anew,
    /// until nothing is left to do. `turn` admits one vCPU at a time, or two could start the same queue.
    pub(super) fn reconcile(&self) {
        let _turn = self.turn.locked();
        loop {
            match self.next_step() {
                Step::Settled => return,
                Step::Stop(running) => self.stop(running),
                Step::StopQueues(queues) => self.stop_queues(queues),
                Step::Start(setups) => self.start(setups),
            }
        }
    }

    fn next_step(&self) -> Step {
        let mut state = self.state();
        // A reset of the device stops every queue, so it comes before resets of single queues. Both come before starts: the
        // driver enables a queue again only after its reset, and the queue then gets the backend of the one that stopped.
        if state.resetting {
            // Doorbells first: a kick that still comes exits to the VMM, which finds that the queue no longer runs.
            let none = vec![false; state.slots.len()];
            let armed = state.doorbells.set_live(none);
            self.note(&mut state, armed.err());
            let running =
                state.slots.iter_mut().enumerate().filter_map(|(n, slot)| Some((n, slot.running.take()?)));
            return Step::Stop(running.collect());
        }
        if state.common.queues.iter().any(|queue| queue.resetting) {
            let State { common, slots, .. } = &mut *state;
            let resetting = |n: usize| common.queues[n].resetting;
            // Doorbells first, as above; the other queues keep theirs.
            let live =
                slots.iter().enumerate().map(|(n, slot)| slot.running.is_some() && !resetting(n)).collect();
            let queues = slots
                .iter_mut()
                .enumerate()
                .filter(|(n, _)| resetting(*n))
                .map(|(n, slot)| (n, slot.running.take()))
                .collect();
            let armed = state.doorbells.set_live(live);
            self.note(&mut state, armed.err());
            return Step::StopQueues(queues);
        }
        // Before DRIVER_OK the device may not look at a ring (virtio 1.2, 3.1.1).
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

    /// Everything that queue `n` needs to run. `Err`: its registers are invalid, or its backend could not be made.
    fn setup(
        &self,
        n: usize,
        queue: &QueueRegs,
        features: u64,
        backend: Option<Box<dyn Backend>>,
    ) -> Result<QueueSetup, String> {
        let layout = queue.layout(features).map_err(|error| error.to_string())?;
        let backend = match backend {
            Some(backend) => backend,
            None => (self.backends)(n as u16).map_err(|error| format!("no backend: {error}"))?,
        };
        let device_status = self.device_status.clone();
        Ok(QueueSetup {
            name: format!("{} queue {n}", self.config.name),
            layout,
            features,
            memory: self.memory.clone(),
            kick: self.kicks[n].event().clone(),
            backend,
            interrupt: queue.interrupt.clone(),
            moderation: self.moderation.clone(),
            block: self.block.clone(),
            counters: self.counters[n].clone(),
            broken: Arc::new(move || device_status.fail()),
        })
    }

    fn start(&self, setups: Vec<(usize, Result<QueueSetup, String>)>) {
        let attach = |n: usize, setup| {
            self.loops[n % self.loops.len()].attach(setup).map_err(|error| error.to_string())
        };
        let started: Vec<_> =
            setups.into_iter().map(|(n, setup)| (n, setup.and_then(|setup| attach(n, setup)))).collect();
        let mut state = self.state();
        for (n, outcome) in started {
            match outcome {
                Ok(running) => {
                    info!(target: "virtio", device = &*self.config.name, queue = n, "queue started");
                    state.slots[n].running = Some(running);
                }
                Err(why) => {
                    // Not tried again before a reset: the next step would fail in the same way, without end.
                    state.slots[n].failed = true;
                    state.last_error = Some(format!("queue {n} cannot run: {why}"));
                    self.device_status.fail();
                    info!(target: "virtio", device = &*self.config.name, queue = n, why, "queue cannot run");
                }
            }
        }
        // Doorbells last, when the queues can take kicks. Earlier kicks are not lost: attach looked at the rings.
        let live = state.slots.iter().map(|slot| slot.running.is_some()).collect();
        let features = state.common.features();
        state.doorbells.set_notification_data(features >> VIRTIO_F_NOTIFICATION_DATA & 1 != 0);
        let armed = state.doorbells.set_live(live);
        self.note(&mut state, armed.err());
    }

    /// Waits until these queues have completed what is in flight, then finishes their resets; the others go on.
    fn stop_queues(&self, queues: Vec<(usize, Option<Box<dyn RunningQueue>>)>) {
        let stopped: Vec<_> =
            queues.into_iter().map(|(n, running)| (n, running.map(RunningQueue::detach))).collect();
        let mut state = self.state();
        for (n, backend) in stopped {
            if let Some(backend) = backend {
                state.slots[n].backend = backend;
            }
            state.slots[n].failed = false;
            info!(target: "virtio", device = &*self.config.name, queue = n, "queue reset done");
            // queue_enable and queue_reset read 0 from now on: the driver may use the queue's memory for something else.
            state.common.queues[n].reset();
        }
    }

    /// Waits until the queues have completed what is in flight, then finishes the reset.
    fn stop(&self, running: Vec<(usize, Box<dyn RunningQueue>)>) {
        let backends: Vec<_> = running.into_iter().map(|(n, queue)| (n, queue.detach())).collect();
        let mut state = self.state();
        let queues = backends.len();
        for (n, backend) in backends {
            state.slots[n].backend = backend;
        }
        for slot in &mut state.slots {
            slot.failed = false;
        }
        // The driver reads status 0 from now on: it may use the queues' memory for something else.
        state.common.reset();
        state.resetting = false;
        state.config_news = false;
        self.interrupts.take_isr();
        self.set_writeback(true);
        // Last: no queue runs any more, so none can set DEVICE_NEEDS_RESET again.
        self.device_status.recover();
        info!(target: "virtio", device = &*self.config.name, queues, "reset done");
    }
}

impl Drop for VirtioBlk {
    /// Stops the queues. Must not run on the thread of a loop that runs one of them.
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
