//! The words that concern the whole guest: its state for the host, and the jobs and outcomes of each CPU.

use crate::abi::*;
use crate::{apic, cpu};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

/// Returns a copy of the whole structure.
pub fn read() -> Control {
    cpu::load(CONTROL)
}

pub fn set_state(state: u32) {
    cpu::store(CONTROL + offset_of!(Control, state) as u64, state);
}

pub fn set_started(tsc: u64) {
    cpu::store(CONTROL + offset_of!(Control, started) as u64, tsc);
}

pub fn set_ready(tsc: u64, devices: usize) {
    cpu::store(CONTROL + offset_of!(Control, devices) as u64, devices as u32);
    cpu::store(CONTROL + offset_of!(Control, ready) as u64, tsc);
    set_state(state::READY);
}

/// Fills the structure in for text mode, in which no host does it.
pub fn set_text_mode(text_port: u16, ecam: u64, bar_window: u64) {
    cpu::store(CONTROL + offset_of!(Control, ecam) as u64, ecam);
    cpu::store(CONTROL + offset_of!(Control, bar_window) as u64, bar_window);
    cpu::store(CONTROL + offset_of!(Control, mode) as u64, mode::TEXT);
    cpu::store(CONTROL + offset_of!(Control, idle) as u64, idle::HALT);
    cpu::store(CONTROL + offset_of!(Control, text_port) as u64, text_port as u32);
}

fn up() -> &'static AtomicU32 {
    // SAFETY: the word lies in the control page, which no Rust object shares, and is only used atomically.
    unsafe { AtomicU32::from_ptr((CONTROL + offset_of!(Control, cpus_up) as u64) as *mut u32) }
}

pub fn cpus_up() -> u32 {
    up().load(Ordering::Acquire)
}

pub fn set_up(cpu: usize) {
    up().fetch_or(1 << cpu, Ordering::Release);
}

fn job_address(cpu: usize) -> u64 {
    CPU_AREA + cpu as u64 * CPU_STRIDE
}

fn outcome_address(cpu: usize) -> u64 {
    job_address(cpu) + OUTCOME_OFFSET
}

/// Waits for this CPU's next job.
pub fn next_job(cpu: usize) -> GuestJob {
    loop {
        let head: u64 = cpu::load(job_address(cpu));
        if head as u32 != done(cpu) {
            return cpu::load(job_address(cpu));
        }
        match cpu::load::<u32>(CONTROL + offset_of!(Control, idle) as u64) {
            idle::HALT => cpu::halt_while(job_address(cpu), head),
            idle::TIMER => {
                apic::alarm();
                cpu::halt_while(job_address(cpu), head);
            }
            _ => cpu::pause(),
        }
    }
}

/// Returns the sequence number of the CPU's last finished job.
pub fn done(cpu: usize) -> u32 {
    cpu::load(outcome_address(cpu))
}

/// Returns the outcome of a finished job.
pub fn outcome(cpu: usize) -> Outcome {
    cpu::load(outcome_address(cpu))
}

/// Publishes an outcome. Writes `done` last, because the host reads the rest once `done` has changed.
pub fn finish(cpu: usize, seq: u32, outcome: Outcome) {
    cpu::store(outcome_address(cpu), Outcome { done: done(cpu), ..outcome });
    cpu::store(outcome_address(cpu), seq);
}

/// Publishes the progress of the running block.
pub fn set_completed(cpu: usize, completed: u32) {
    cpu::store(outcome_address(cpu) + offset_of!(Outcome, completed) as u64, completed);
}

/// Gives another CPU a job, as a host would. Chooses its `seq` and returns it.
pub fn give(cpu: usize, job: GuestJob) -> u32 {
    let seq = done(cpu).wrapping_add(1);
    cpu::store(job_address(cpu), GuestJob { seq: done(cpu), ..job });
    cpu::store(job_address(cpu), seq);
    seq
}

/// Returns `seq` of the job that a CPU was given last.
pub fn job_seq(cpu: usize) -> u32 {
    cpu::load(job_address(cpu))
}
