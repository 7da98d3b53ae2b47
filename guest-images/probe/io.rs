//! A block of requests on one queue: submits, kicks, waits, takes and checks completions, and repeats.

use crate::abi::*;
use crate::device;
use crate::global::Global;
use crate::queue::Queue;
use crate::samples::Samples;
use crate::slots::{IDLE, Maker, Slot};
use crate::torture::Torture;
use crate::wait::{Counts, TimedOut, Waiter};
use crate::{apic, control, cpu, setup};

static SLOTS: Global<[[Slot; MAX_DEPTH]; MAX_CPUS]> = Global::new([[IDLE; MAX_DEPTH]; MAX_CPUS]);

struct Block<'a> {
    job: &'a GuestJob,
    queue: &'static mut Queue,
    slots: &'static mut [Slot],
    maker: Maker,
    waiter: Waiter,
    torture: Torture,
    samples: Samples,
    stamped: bool,
    /// Slots pushed and not yet published.
    fresh: [u16; MAX_DEPTH],
    fresh_count: usize,
    /// With ONE_BY_ONE: slots whose requests have completed and that are not in use again.
    idle: [u16; MAX_DEPTH],
    idle_count: usize,
    submitted: u32,
    completed: u32,
    /// The number of the next completion if completions come in submission order.
    expected: u32,
    out: Outcome,
}

pub fn run(cpu: usize, job: &GuestJob) -> Outcome {
    let refuse = |status| Outcome { status, ..Default::default() };
    let Some(info) = device::info(job.device) else { return refuse(status::NO_DEVICE) };
    if job.queue >= info.queues {
        return refuse(status::DEVICE);
    }
    if job.flags & flag::RESET_QUEUE != 0 && !setup::queue_again(job.device, job.queue as u16) {
        return refuse(status::DEVICE);
    }
    let queue = Queue::get(job.device, job.queue);
    if job.depth == 0 || job.depth as usize > MAX_DEPTH || job.requests == 0 {
        return refuse(status::BAD_JOB);
    }
    let vector = queue.vector;
    let other = if job.route_every != 0 && job.vector2 != vector { job.vector2 } else { 0 };
    let (Some(maker), Some(waiter), Some(torture)) = (
        Maker::new(cpu, job, &info, queue),
        Waiter::new(job, vector, other),
        Torture::new(job, &info, vector),
    ) else {
        return refuse(status::BAD_JOB);
    };
    setup::claim_pin(&info, vector, job.cpu);
    // SAFETY: each CPU uses its own row, one block at a time.
    let slots = unsafe { &mut (&mut *SLOTS.get())[cpu][..job.depth as usize] };
    slots.fill(IDLE);
    let counts = Counts::begin(vector, other);
    let mut block = Block {
        job,
        queue,
        slots,
        maker,
        waiter,
        torture,
        samples: Samples::new(cpu, job.samples),
        stamped: other == 0 && (vector::STAMPED..vector::INTX).contains(&vector),
        fresh: [0; MAX_DEPTH],
        fresh_count: 0,
        idle: [0; MAX_DEPTH],
        idle_count: 0,
        submitted: 0,
        completed: 0,
        expected: 0,
        out: Outcome::default(),
    };
    let result = block.go(cpu);
    block.torture.restore();
    let mut out = block.out;
    out.tsc_end = cpu::tsc();
    (out.completed, out.samples) = (block.completed, block.samples.count);
    (out.masks, out.routes) = (block.torture.masks, block.torture.routes);
    let (interrupts, unconfirmed) = counts.end();
    out.interrupts = interrupts;
    out.spurious += unconfirmed;
    out.status = match result {
        Err(TimedOut) => {
            out.detail = (block.submitted - block.completed) as u64;
            status::TIMEOUT
        }
        Ok(()) if out.duplicates + out.unknown > 0 => status::RING,
        Ok(()) => status::OK,
    };
    out
}

impl Block<'_> {
    fn go(&mut self, cpu: usize) -> Result<(), TimedOut> {
        // Drop used entries that an earlier block left in the ring.
        self.drain(0);
        if self.one_by_one() {
            return self.go_one_by_one(cpu);
        }
        let eager = self.job.depth > 1 || self.job.flags & flag::EAGER != 0;
        let mut count = self.rearm();
        self.out.tsc_begin = cpu::tsc();
        let first = self.job.depth.min(self.job.requests);
        for slot in 0..first as usize {
            self.submit(slot);
        }
        self.publish();
        while self.completed < self.job.requests {
            let seen = if self.waiter.polls() {
                self.waiter.until(|| self.queue.has_used())?
            } else if eager && self.queue.has_used() {
                cpu::tsc()
            } else {
                let seen = self.waiter.interrupt(count, &mut self.out)?;
                count = self.waiter.count();
                seen
            };
            if self.drain(seen) == 0 {
                self.out.spurious += 1;
                continue;
            }
            control::set_completed(cpu, self.completed);
            // Read the count first. If it were read after arm(), an interrupt that arm() asked for might be in it
            // already, and the wait would miss it.
            count = self.rearm();
            if self.fresh_count > 0 {
                self.publish();
            }
        }
        Ok(())
    }

    fn one_by_one(&self) -> bool {
        self.job.flags & flag::ONE_BY_ONE != 0
    }

    /// Submits as Linux does under an application: the driver's handler takes completions when the interrupt comes, and
    /// until then the application keeps submitting.
    fn go_one_by_one(&mut self, cpu: usize) -> Result<(), TimedOut> {
        let first = self.job.depth.min(self.job.requests) as usize;
        for slot in 0..first {
            self.idle[slot] = slot as u16;
        }
        self.idle_count = first;
        let mut count = self.rearm();
        self.out.tsc_begin = cpu::tsc();
        while self.completed < self.job.requests {
            if self.waiter.count() == count {
                if self.idle_count == 0 || self.submitted == self.job.requests {
                    self.waiter.interrupt(count, &mut self.out)?;
                } else {
                    cpu::delay(self.job.gap);
                    self.idle_count -= 1;
                    self.submit(self.idle[self.idle_count] as usize);
                    self.publish();
                    continue;
                }
            }
            // The handler: take completions, ask for the next interrupt, and check again, until nothing came in between.
            loop {
                self.drain(cpu::tsc());
                control::set_completed(cpu, self.completed);
                count = self.rearm();
                if !self.queue.has_used() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn rearm(&mut self) -> u64 {
        let count = self.waiter.count();
        if self.waiter.polls() {
            self.queue.disarm()
        } else {
            self.queue.arm()
        }
        count
    }

    /// Builds the slot's next request and puts it into the ring.
    fn submit(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.number = self.submitted;
        self.submitted += 1;
        self.fresh[self.fresh_count] = index as u16;
        self.fresh_count += 1;
        let head = self.maker.build(self.queue, index, slot);
        self.queue.push(head);
    }

    /// Publishes the new requests, kicks if the device wants it, and records both times for each request.
    fn publish(&mut self) {
        if self.job.gap != 0 && self.job.depth == 1 {
            cpu::delay(self.job.gap);
        }
        self.torture.before_kick();
        let start = cpu::tsc();
        let wanted = self.queue.publish();
        if wanted || self.job.flags & flag::ALWAYS_KICK != 0 {
            self.queue.kick();
            self.out.kicks += 1;
        } else {
            self.out.kicks_suppressed += 1;
        }
        let kicked = cpu::tsc();
        self.torture.after_kick();
        for index in &self.fresh[..self.fresh_count] {
            let slot = &mut self.slots[*index as usize];
            (slot.start, slot.kicked) = (start, kicked);
        }
        self.fresh_count = 0;
    }

    /// Takes and checks every used entry, and submits a new request for each while there are more to do. Returns how many it
    /// took.
    fn drain(&mut self, seen: u64) -> u32 {
        let mut taken = 0;
        while let Some((head, _)) = self.queue.pop() {
            taken += 1;
            let index = (head / self.maker.chain as u32) as usize;
            let known = head % self.maker.chain as u32 == 0 && index < self.slots.len();
            if !known || !self.slots[index].busy {
                if known {
                    self.out.duplicates += 1
                } else {
                    self.out.unknown += 1
                }
                continue;
            }
            let mut slot = self.slots[index];
            self.maker.finish(self.queue, index, &mut slot, &mut self.out);
            let done = cpu::tsc();
            let handler = if self.stamped { apic::stamp(self.queue.vector) } else { 0 };
            self.samples.add(slot.start, slot.kicked, handler, seen, done);
            self.out.reordered += (slot.number != self.expected) as u64;
            self.expected = slot.number.wrapping_add(1);
            self.slots[index] = slot;
            self.completed += 1;
            if self.one_by_one() {
                self.idle[self.idle_count] = index as u16;
                self.idle_count += 1;
            } else if self.submitted < self.job.requests {
                self.submit(index);
            }
        }
        self.out.batches += (taken > 0) as u64;
        taken
    }
}
