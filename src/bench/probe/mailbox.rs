use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::super::probe_abi::{
    CONTROL, CPU_AREA, CPU_STRIDE, Control, DEVICE_TABLE, DeviceInfo, GuestJob, OUTCOME_OFFSET, Outcome,
    SAMPLE_STRIDE, SAMPLES, Sample, TRAP, Trap, state, status,
};
use super::error::SessionError;
use crate::machine::Ram;

/// Jobs and outcomes in the probe's memory, whichever VMM runs it. All addresses are within the memory that every
/// probe has, so accesses cannot fail.
pub struct Mailbox {
    memory: Arc<Ram>,
    seq: u32,
}

impl Mailbox {
    /// The mailbox of a guest with this memory, at least [`super::super::probe_abi::RAM_SIZE`] bytes.
    pub fn new(memory: Arc<Ram>) -> Mailbox {
        Mailbox { memory, seq: 0 }
    }

    /// Writes the guest's configuration. Call it before the guest starts.
    pub fn write_control(&self, control: &Control) {
        self.write(CONTROL, &control.to_bytes());
    }

    /// The guest's state.
    pub fn control(&self) -> Control {
        Control::from_bytes(&self.read(CONTROL))
    }

    /// Changes how the guest's CPUs wait for their next job: one of [`super::super::probe_abi::idle`].
    pub fn set_idle(&self, idle: u32) {
        let at = CONTROL + std::mem::offset_of!(Control, idle) as u64;
        let _ = self.memory.store(idle, GuestAddress(at), Ordering::Release);
    }

    /// The devices as the guest found them.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let at = |n: u64| DEVICE_TABLE + n * DeviceInfo::SIZE as u64;
        (0..self.control().devices.into()).map(|n| DeviceInfo::from_bytes(&self.read(at(n)))).collect()
    }

    /// Hands each CPU its job; returns the sequence number to wait for.
    pub fn give(&mut self, jobs: &[(usize, GuestJob)]) -> u32 {
        self.seq += 1;
        for &(cpu, job) in jobs {
            let at = CPU_AREA + cpu as u64 * CPU_STRIDE;
            self.write(at + 4, &job.to_bytes()[4..]);
            // Last, because the guest takes the job as soon as it sees the number.
            let _ = self.memory.store(self.seq, GuestAddress(at), Ordering::Release);
        }
        self.seq
    }

    /// Whether a CPU has finished the job with that number.
    pub fn is_done(&self, cpu: usize, seq: u32) -> bool {
        self.memory.load(GuestAddress(outcome_at(cpu)), Ordering::Acquire).is_ok_and(|done: u32| done == seq)
    }

    /// The outcome of a CPU's block, also while it runs.
    pub fn outcome(&self, cpu: usize) -> Outcome {
        Outcome::from_bytes(&self.read(outcome_at(cpu)))
    }

    /// The samples of a CPU's last block.
    pub fn samples(&self, cpu: usize, outcome: &Outcome) -> Vec<Sample> {
        let at = |n: u32| SAMPLES + cpu as u64 * SAMPLE_STRIDE + u64::from(n) * Sample::SIZE as u64;
        (0..outcome.samples).map(|n| Sample::from_bytes(&self.read(at(n)))).collect()
    }

    /// Checks for `done` every 300 us and sleeps in between, because the guest and the I/O thread need the CPUs.
    /// `ended` returns why the VM has stopped, if it has.
    ///
    /// # Errors
    /// The guest stopped, or `seconds` have passed.
    pub fn wait(
        &self,
        seconds: u64,
        mut ended: impl FnMut() -> Option<String>,
        done: impl Fn(&Mailbox) -> bool,
    ) -> Result<(), SessionError> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !done(self) {
            if let Some(why) = ended() {
                return Err(self.trap().unwrap_or(SessionError::Ended(why)));
            }
            if let Some(trap) = self.trap() {
                return Err(trap);
            }
            if Instant::now() > deadline {
                return Err(SessionError::Silent(seconds));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }

    /// Why the guest stopped; `None`: it runs.
    pub fn trap(&self) -> Option<SessionError> {
        let trap = Trap::from_bytes(&self.read(TRAP));
        let failed = self.control().state == state::FAILED;
        (trap.vector != 0 || failed).then(|| SessionError::Trap(format!("{trap:x?}")))
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(at));
        bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(at));
    }
}

fn outcome_at(cpu: usize) -> u64 {
    CPU_AREA + cpu as u64 * CPU_STRIDE + OUTCOME_OFFSET
}

/// Turns a block that did not complete into an error.
///
/// # Errors
/// [`SessionError::Block`].
pub(super) fn completed(outcome: Outcome, job: &GuestJob) -> Result<Outcome, SessionError> {
    if outcome.status == status::OK {
        return Ok(outcome);
    }
    Err(SessionError::Block {
        status: outcome.status,
        detail: outcome.detail,
        completed: outcome.completed,
        requests: job.requests,
    })
}
