//! Each CPU's loop: take a plan, do it, publish what became of it.

use crate::abi::*;
use crate::{control, cpu, device, floor, hostile, io, setup};

/// Plans until one says END.
pub fn serve(cpu: usize) -> ! {
    loop {
        let plan = control::next_plan(cpu);
        if plan.kind == kind::END {
            if cpu == 0 {
                control::set_state(state::ENDED);
            }
            control::finish(cpu, plan.seq, Outcome::default());
            cpu::stop();
        }
        let outcome = execute(cpu, &plan);
        control::finish(cpu, plan.seq, outcome);
    }
}

/// One plan.
pub fn execute(cpu: usize, plan: &GuestJob) -> Outcome {
    match plan.kind {
        kind::NOP => Outcome { tsc_begin: cpu::tsc(), tsc_end: cpu::tsc(), ..Default::default() },
        kind::SETUP => setup::setup(plan),
        kind::RESET if device::reset(plan.device) => Outcome::default(),
        kind::RESET => Outcome { status: status::DEVICE, ..Default::default() },
        kind::IO => io::run(cpu, plan),
        kind::FLOOR => floor::floor(cpu, plan),
        kind::STORE | kind::EMPTY => floor::store(cpu, plan),
        kind::HOSTILE => hostile::run(cpu, plan),
        kind::POKE => floor::poke(plan),
        _ => Outcome { status: status::BAD_PLAN, ..Default::default() },
    }
}
