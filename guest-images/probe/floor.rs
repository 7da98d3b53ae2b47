//! The floor: a store and an interrupt with no virtio between them; the store alone; nothing at all.

use crate::abi::*;
use crate::samples::Samples;
use crate::wait::{Counts, Waiter};
use crate::{apic, control, cpu};

/// Makes the store of FLOOR and STORE: `address` is a doorbell page or a port that the host chose.
#[inline(always)]
fn kick(job: &GuestJob, number: u64) {
    let value = job.value.wrapping_add(number);
    let port = job.flags & flag::PORT != 0;
    match (job.width, port) {
        (1, false) => cpu::store(job.address, value as u8),
        (4, false) => cpu::store(job.address, value as u32),
        (8, false) => cpu::store(job.address, value),
        (_, false) => cpu::store(job.address, value as u16),
        (1, true) => cpu::out8(job.address as u16, value as u8),
        (4, true) => cpu::out32(job.address as u16, value as u32),
        (_, true) => cpu::out16(job.address as u16, value as u16),
    }
}

/// Whether a store to the job's address is possible: memory is mapped below 4 GiB, and ports end at 2^16.
pub fn reachable(job: &GuestJob) -> bool {
    let end = if job.flags & flag::PORT != 0 { 1 << 16 } else { 1 << 32 };
    job.address < end - 8 && matches!(job.width, 0 | 1 | 2 | 4 | 8)
}

/// FLOOR: writes the number to FLOOR_WORD, stores, then waits for the vector's interrupt or the number in FLOOR_ANSWER.
pub fn floor(cpu: usize, job: &GuestJob) -> Outcome {
    let mut out = Outcome::default();
    let (Some(waiter), true) = (Waiter::new(job, job.vector, 0), reachable(job)) else {
        return Outcome { status: status::BAD_JOB, ..out };
    };
    let stamped = (vector::STAMPED..vector::INTX).contains(&job.vector);
    let counts = Counts::begin(job.vector, 0);
    let mut samples = Samples::new(cpu, job.samples);
    out.tsc_begin = cpu::tsc();
    for i in 0..job.requests {
        if job.gap != 0 {
            cpu::delay(job.gap);
        }
        // The number never repeats within a run, so an old answer is never taken for a new one.
        let number = cpu::load::<u64>(FLOOR_WORD) + 1;
        let before = waiter.count();
        let start = cpu::tsc();
        cpu::store(FLOOR_WORD, number);
        if job.flags & flag::NO_STORE == 0 {
            kick(job, i as u64);
            out.kicks += 1;
        }
        let kicked = cpu::tsc();
        let answer = if waiter.polls() {
            waiter.until(|| cpu::load::<u64>(FLOOR_ANSWER) == number)
        } else {
            waiter.interrupt(before, &mut out)
        };
        let Ok(seen) = answer else {
            out.status = status::TIMEOUT;
            out.detail = (job.requests - i) as u64;
            break;
        };
        let handler = if stamped { apic::stamp(job.vector) } else { 0 };
        samples.add(start, kicked, handler, seen, seen);
        out.completed = i + 1;
        control::set_completed(cpu, out.completed);
    }
    out.tsc_end = cpu::tsc();
    out.samples = samples.count;
    (out.interrupts, out.spurious) = counts.end();
    out
}

/// STORE: only the kick. EMPTY: only the measurement, for its own cost.
pub fn store(cpu: usize, job: &GuestJob) -> Outcome {
    let mut out = Outcome::default();
    let stores = job.kind == kind::STORE;
    if stores && !reachable(job) {
        return Outcome { status: status::BAD_JOB, ..out };
    }
    let mut samples = Samples::new(cpu, job.samples);
    out.tsc_begin = cpu::tsc();
    for i in 0..job.requests {
        if job.gap != 0 {
            cpu::delay(job.gap);
        }
        let start = cpu::tsc();
        if stores {
            kick(job, i as u64);
        }
        let kicked = cpu::tsc();
        samples.add(start, kicked, 0, kicked, kicked);
        out.completed = i + 1;
    }
    out.tsc_end = cpu::tsc();
    out.samples = samples.count;
    out.kicks = if stores { job.requests as u64 } else { 0 };
    out
}

/// POKE: makes one access of any kind.
pub fn poke(job: &GuestJob) -> Outcome {
    let mut out = Outcome { completed: 1, ..Default::default() };
    let port = matches!(job.op, poke::IN | poke::OUT);
    let flags = if port { flag::PORT } else { 0 };
    let configuration = matches!(job.op, poke::CONFIG_READ | poke::CONFIG_WRITE);
    if !reachable(&GuestJob { flags, ..*job }) || (configuration && job.address >= 1 << 24) {
        return Outcome { status: status::BAD_JOB, ..out };
    }
    let function = crate::pci::Function((job.address >> 8) as u16);
    let offset = job.address as u16 & 0xff;
    out.tsc_begin = cpu::tsc();
    match job.op {
        poke::LOAD => {
            out.value = match job.width {
                1 => cpu::load::<u8>(job.address) as u64,
                4 => cpu::load::<u32>(job.address) as u64,
                8 => cpu::load(job.address),
                _ => cpu::load::<u16>(job.address) as u64,
            }
        }
        poke::IN => {
            out.value = match job.width {
                1 => cpu::in8(job.address as u16) as u64,
                4 => cpu::in32(job.address as u16) as u64,
                _ => cpu::in16(job.address as u16) as u64,
            }
        }
        poke::STORE | poke::OUT => kick(&GuestJob { flags, ..*job }, 0),
        poke::CONFIG_READ => out.value = function.read(offset) as u64,
        poke::CONFIG_WRITE => function.write(offset, job.value as u32),
        _ => out.status = status::BAD_JOB,
    }
    out.tsc_end = cpu::tsc();
    out
}
