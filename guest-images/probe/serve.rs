//! Each CPU's loop: take a job, run it, publish its outcome.

use crate::abi::*;
use crate::{control, cpu, device, floor, hostile, io, setup};

/// Runs jobs until an END job.
pub fn serve(cpu: usize) -> ! {
    loop {
        let job = control::next_job(cpu);
        if job.kind == kind::END {
            if cpu == 0 {
                control::set_state(state::ENDED);
            }
            control::finish(cpu, job.seq, Outcome::default());
            cpu::stop();
        }
        let outcome = execute(cpu, &job);
        control::finish(cpu, job.seq, outcome);
    }
}

/// Runs one job.
pub fn execute(cpu: usize, job: &GuestJob) -> Outcome {
    match job.kind {
        kind::NOP => Outcome { tsc_begin: cpu::tsc(), tsc_end: cpu::tsc(), ..Default::default() },
        kind::SETUP => setup::setup(job),
        kind::RESET if device::reset(job.device) => Outcome::default(),
        kind::RESET => Outcome { status: status::DEVICE, ..Default::default() },
        kind::IO => io::run(cpu, job),
        kind::FLOOR => floor::floor(cpu, job),
        kind::STORE | kind::EMPTY => floor::store(cpu, job),
        kind::HOSTILE => hostile::run(cpu, job),
        kind::POKE => floor::poke(job),
        _ => Outcome { status: status::BAD_JOB, ..Default::default() },
    }
}
