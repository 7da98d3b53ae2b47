//! Waits for an interrupt's count to change, or for memory to change, with a deadline.

use crate::abi::{Outcome, GuestJob, VECTOR_STRIDE, VECTOR_TABLE, vector, wait};
use crate::device::DEFAULT_DEADLINE;
use crate::{apic, cpu};

/// Nothing changed before the deadline.
pub struct TimedOut;

/// How one block waits.
#[derive(Clone, Copy)]
pub struct Waiter {
    how: u32,
    /// The word that the first vector's stub increments.
    word: u64,
    /// The second vector's word, if a block moves its interrupt between two; else 0.
    other: u64,
    deadline: u64,
}

/// Returns the address of the word that counts a driver's interrupts. For INTx it counts only what the ISR register
/// confirmed.
fn word_of(vector: u32) -> u64 {
    let intx = (vector::INTX..vector::END).contains(&vector);
    VECTOR_TABLE + vector as u64 * VECTOR_STRIDE + if intx { 16 } else { 0 }
}

impl Waiter {
    /// Returns None if the job asks for something impossible (HLT on two vectors).
    pub fn new(job: &GuestJob, vector: u32, other: u32) -> Option<Self> {
        if vector > 255 || other > 255 || job.wait > wait::POLL || (job.wait == wait::HALT && other != 0) {
            return None;
        }
        let deadline = if job.deadline == 0 { DEFAULT_DEADLINE } else { job.deadline };
        Some(Self {
            how: job.wait,
            word: word_of(vector),
            other: if other == 0 { 0 } else { word_of(other) },
            deadline,
        })
    }

    pub fn polls(&self) -> bool {
        self.how == wait::POLL
    }

    /// Returns the number of interrupts so far.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        let second: u64 = if self.other == 0 { 0 } else { cpu::load(self.other) };
        cpu::load::<u64>(self.word).wrapping_add(second)
    }

    /// Waits until the count differs from `before`. Returns the TSC when it saw that.
    #[inline(always)]
    pub fn interrupt(&self, before: u64, out: &mut Outcome) -> Result<u64, TimedOut> {
        if self.how == wait::HALT {
            return self.halt(before, out);
        }
        self.until(|| self.count() != before)
    }

    fn halt(&self, before: u64, out: &mut Outcome) -> Result<u64, TimedOut> {
        let from = cpu::tsc();
        while self.count() == before {
            out.halts += 1;
            cpu::halt_while(self.word, before);
            if cpu::tsc().wrapping_sub(from) > self.deadline {
                return Err(TimedOut);
            }
        }
        Ok(cpu::tsc())
    }

    /// Spins until `done`. Returns the TSC when it saw that. Reads the clock rarely, to keep the loop short.
    #[inline(always)]
    pub fn until(&self, done: impl Fn() -> bool) -> Result<u64, TimedOut> {
        let mut from = 0;
        loop {
            for _ in 0..1024 {
                if done() {
                    return Ok(cpu::tsc());
                }
                cpu::pause();
            }
            let now = cpu::tsc();
            if from == 0 {
                from = now;
            } else if now.wrapping_sub(from) > self.deadline {
                return Err(TimedOut);
            }
        }
    }
}

/// The counts of a block's vectors before the block, for differences after it.
pub struct Counts {
    vectors: [u32; 2],
    handled: u64,
    confirmed: u64,
}

impl Counts {
    /// Reads the counts. `other` is 0 if there is one vector only.
    pub fn begin(vector: u32, other: u32) -> Self {
        let vectors = [vector, other];
        Self { vectors, handled: Self::sum(vectors, 0), confirmed: Self::sum(vectors, 16) }
    }

    /// Returns the interrupts handled since, and how many of them the ISR register did not confirm (INTx only).
    pub fn end(&self) -> (u64, u64) {
        let handled = Self::sum(self.vectors, 0).wrapping_sub(self.handled);
        let confirmed = Self::sum(self.vectors, 16).wrapping_sub(self.confirmed);
        let intx = (vector::INTX..vector::END).contains(&self.vectors[0]);
        (handled, if intx { handled.saturating_sub(confirmed) } else { 0 })
    }

    fn sum(vectors: [u32; 2], offset: u64) -> u64 {
        vectors
            .iter()
            .filter(|v| **v != 0)
            .map(|v| cpu::load::<u64>(apic::count_address(*v) + offset))
            .fold(0, u64::wrapping_add)
    }
}
