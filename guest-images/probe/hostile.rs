//! Attacks on a device: sends one malformed request, records the device's reaction, and checks that it recovers.

use crate::abi::*;
use crate::device::{self, NEEDS_RESET};
use crate::queue::{NEXT, Queue, WRITE};
use crate::{cpu, io, setup};

pub fn run(cpu: usize, job: &GuestJob) -> Outcome {
    let mut out = Outcome::default();
    let Some(info) = device::info(job.device) else {
        return Outcome { status: status::NO_DEVICE, ..out };
    };
    if job.queue >= info.queues {
        return Outcome { status: status::DEVICE, ..out };
    }
    let queue = Queue::get(job.device, job.queue);
    if !attack(queue, job) {
        return Outcome { status: status::BAD_JOB, ..out };
    }
    out.tsc_begin = cpu::tsc();
    queue.publish();
    queue.kick();
    out.kicks = 1;
    out.value = watch(queue, &info, job, &mut out);
    // Whatever the device did, it must work again after a reset and the same set-up.
    let again = setup::setup_again(job.device);
    let read = GuestJob {
        kind: kind::IO,
        op: op::READ,
        depth: 1,
        requests: 1,
        size: 512,
        flags: 0,
        samples: 1,
        wait: wait::POLL,
        ..*job
    };
    if again.status == status::OK {
        let outcome = io::run(cpu, &read);
        if outcome.status == status::OK && outcome.io_errors == 0 {
            out.value |= answer::RECOVERED;
        }
    }
    out.completed = 1;
    out.tsc_end = cpu::tsc();
    out
}

/// Puts the malformed chain into the ring. Returns whether there is such an attack.
fn attack(queue: &mut Queue, job: &GuestJob) -> bool {
    let data = POOL;
    let (header, status) = (queue.header(0), queue.status(0));
    cpu::store(header, op::READ as u64);
    cpu::store(header + 8, job.sector);
    cpu::store(status, 0xffu8);
    if queue.packed {
        return attack_packed(queue, job, data);
    }
    let ring = queue.ring();
    Queue::descriptor(ring, 0, header, 16, NEXT, 1);
    Queue::descriptor(ring, 1, data, 512, NEXT | WRITE, 2);
    Queue::descriptor(ring, 2, status, 1, WRITE, 0);
    match job.op {
        attack::LOOP => Queue::descriptor(ring, 1, data, 512, NEXT | WRITE, 0),
        attack::NEXT_OUT_OF_RANGE => Queue::descriptor(ring, 1, data, 512, NEXT | WRITE, queue.size + 7),
        attack::ADDRESS_BEYOND_RAM => Queue::descriptor(ring, 1, 1 << 45, 512, NEXT | WRITE, 2),
        attack::HEAD_OUT_OF_RANGE => {
            queue.push(queue.size.wrapping_add(3));
            return true;
        }
        attack::INDEX_JUMP => queue.jump(queue.size.wrapping_add(5)),
        _ => return false,
    }
    queue.push(0);
    true
}

/// The same in a packed ring, which has no indices that could be wrong.
fn attack_packed(queue: &mut Queue, job: &GuestJob, data: u64) -> bool {
    let (header, status, table) = (queue.header(0), queue.status(0), queue.table(0));
    let (address, last) = match job.op {
        attack::LOOP => (data, WRITE | NEXT),
        attack::ADDRESS_BEYOND_RAM => (1 << 45, WRITE),
        _ => return false,
    };
    for at in 0..queue.size {
        Queue::packed_descriptor(queue.ring(), at, data, 512, WRITE | NEXT, 0);
    }
    Queue::packed_descriptor(table, 0, header, 16, NEXT, 0);
    Queue::packed_descriptor(table, 1, address, 512, NEXT | WRITE, 0);
    Queue::packed_descriptor(table, 2, status, 1, last, 0);
    queue.stage(0, 3, false);
    queue.push(0);
    true
}

/// Waits for the device's reaction. Returns what it did, as bits of `answer`.
fn watch(queue: &mut Queue, info: &DeviceInfo, job: &GuestJob, out: &mut Outcome) -> u64 {
    let deadline = if job.deadline == 0 { 1 << 29 } else { job.deadline };
    let from = cpu::tsc();
    loop {
        if queue.pop().is_some() {
            let status: u8 = cpu::load(queue.status(0));
            out.detail = status as u64;
            return if matches!(status, 1 | 2) { answer::REFUSED } else { answer::TAKEN };
        }
        if device::status(info) & NEEDS_RESET != 0 {
            return answer::NEEDS_RESET;
        }
        if cpu::tsc().wrapping_sub(from) > deadline {
            return answer::SILENT;
        }
        cpu::delay(100_000);
    }
}
