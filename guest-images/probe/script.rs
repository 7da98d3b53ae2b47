//! Text mode: the guest gives itself jobs. The command line says what to run, and every block prints one line of JSON.

use crate::abi::*;
use crate::{apic, clock, cmdline, control, cpu, device, moves, report, say, serve};

const WAITS: &[(&str, u32)] = &[("spin", wait::SPIN), ("halt", wait::HALT), ("poll", wait::POLL)];
const OPS: &[(&str, u32)] = &[
    ("read", op::READ),
    ("write", op::WRITE),
    ("flush", op::FLUSH),
    ("get-id", op::GET_ID),
    ("discard", op::DISCARD),
    ("write-zeroes", op::WRITE_ZEROES),
    ("verify", op::VERIFY),
];
const ORDERS: &[(&str, u32)] =
    &[("fixed", order::FIXED), ("sequential", order::SEQUENTIAL), ("random", order::RANDOM)];
const IRQS: &[(&str, u32)] = &[("msix", 0), ("intx", flag::INTX)];

fn one(mut words: impl Iterator<Item = u32>) -> u32 {
    words.next().unwrap_or(0)
}

fn on(key: &str, default: u64, bit: u32) -> u32 {
    if cmdline::number(key, default) != 0 { bit } else { 0 }
}

/// Runs everything and ends the machine.
pub fn run() -> ! {
    let ok = match cmdline::value("mode") {
        Some("hello") => true,
        Some("hostile") => hostile(),
        _ => bench(),
    };
    say!("{{\"probe\":1,\"event\":\"end\",\"ok\":{ok}}}");
    end(ok)
}

/// Ends the machine by isa-debug-exit (QEMU's status: 33 good, 35 bad), or by a reset, or else stops the CPU.
fn end(ok: bool) -> ! {
    control::set_state(state::ENDED);
    cpu::out32(0xf4, if ok { 0x10 } else { 0x11 });
    cpu::out8(0xcf9, 6);
    cpu::out8(0x64, 0xfe);
    cpu::stop()
}

fn setup(cpus: u32) -> Option<GuestJob> {
    let irq = one(cmdline::words("irq", "msix", IRQS));
    let job = GuestJob {
        kind: kind::SETUP,
        device: cmdline::number("dev", 0) as u32,
        queues: cmdline::number("queues", cpus as u64) as u32,
        queue_size: cmdline::number("queue_size", 0) as u32,
        pin: cmdline::number("pin", 0) as u32,
        vector: cmdline::number("vector", 0) as u32,
        features: cmdline::number("features", 0),
        flags: irq
            | on("spread", 1, flag::SPREAD)
            | on("packed", 0, flag::PACKED)
            | on("short_kick", 0, flag::SHORT_KICK)
            | (flag::NO_EVENT_IDX ^ on("event_idx", 1, flag::NO_EVENT_IDX))
            | (flag::NO_INDIRECT ^ on("indirect_desc", 1, flag::NO_INDIRECT)),
        ..Default::default()
    };
    let out = serve::execute(0, &job);
    say!(
        "{{\"probe\":1,\"event\":\"setup\",\"dev\":{},\"status\":{},\"queues\":{},\"features\":\"{:#x}\"}}",
        job.device,
        out.status,
        out.value,
        out.features
    );
    (out.status == status::OK).then_some(GuestJob { queues: out.value as u32, ..job })
}

fn bench() -> bool {
    let cpus = control::cpus_up().count_ones();
    let Some(setup) = setup(cpus) else { return false };
    let base = GuestJob {
        kind: kind::IO,
        device: setup.device,
        requests: cmdline::number("requests", 20_000) as u32,
        size: cmdline::number("size", 512) as u32,
        segments: cmdline::number("segments", 1) as u32,
        order: one(cmdline::words("order", "fixed", ORDERS)),
        sector: cmdline::number("sector", 0),
        span: cmdline::number("span", 0),
        seed: cmdline::number("seed", 1),
        gap: clock::ticks_of_us(cmdline::number("gap_us", 20)),
        deadline: clock::ticks_of_us(1000 * cmdline::number("deadline_ms", 5000)),
        mask_every: cmdline::number("mask_every", 0) as u32,
        route_every: cmdline::number("route_every", 0) as u32,
        vector2: cmdline::number("vector2", 0) as u32,
        cpu2: cmdline::number("cpu2", 0) as u32,
        hold: clock::ticks_of_us(cmdline::number("hold_us", 100)),
        flags: on("fill", 0, flag::FILL)
            | on("check", 0, flag::CHECK)
            | on("always_kick", 0, flag::ALWAYS_KICK)
            | on("indirect", 0, flag::INDIRECT)
            | on("eager", 0, flag::EAGER)
            | on("one_by_one", 0, flag::ONE_BY_ONE)
            | on("reset_queue", 0, flag::RESET_QUEUE)
            | on("route_live", 0, flag::ROUTE_LIVE),
        ..Default::default()
    };
    let mut ok = true;
    for round in 0..cmdline::number("rounds", 1) {
        if round > 0 && cmdline::number("move_bar", 0) != 0 {
            ok &= moves::move_bar(setup.device);
        }
        for op in cmdline::words("op", "read", OPS) {
            for wait in cmdline::words("wait", "spin", WAITS) {
                for depth in cmdline::numbers("depth", 1) {
                    let job = GuestJob { op, wait, depth: depth as u32, ..base };
                    ok &= block(&job, setup.queues.min(cpus), round);
                }
            }
        }
    }
    ok
}

/// Runs one block on each CPU's queue, all at once. The CPUs share the sectors out among them.
fn block(job: &GuestJob, cpus: u32, round: u64) -> bool {
    let capacity = device::info(job.device).map_or(0, |info| info.capacity);
    let whole = if job.span == 0 { capacity.saturating_sub(job.sector) } else { job.span };
    let unit = (job.size as u64 / 512).max(1);
    let share = whole / cpus as u64 / unit * unit;
    let of = |cpu: u32| GuestJob {
        queue: cpu,
        cpu,
        cpu2: if job.route_every != 0 { job.cpu2 } else { cpu },
        sector: job.sector + cpu as u64 * share,
        span: share,
        ..*job
    };
    for cpu in 1..cpus {
        control::give(cpu as usize, of(cpu));
        apic::wake(cpu);
    }
    control::give(0, of(0));
    let own = control::next_job(0);
    control::finish(0, own.seq, serve::execute(0, &own));
    let mut ok = true;
    for cpu in 0..cpus {
        let seq = control::job_seq(cpu as usize);
        while control::done(cpu as usize) != seq {
            cpu::pause();
        }
        let out = control::outcome(cpu as usize);
        report::block(&of(cpu), cpu, round, &out);
        ok &= out.status == status::OK && out.data_errors + out.io_errors == 0;
    }
    ok
}

fn hostile() -> bool {
    let Some(setup) = setup(1) else { return false };
    let mut ok = true;
    for op in cmdline::numbers("attack", 0) {
        let job = GuestJob { kind: kind::HOSTILE, device: setup.device, op: op as u32, ..Default::default() };
        let out = serve::execute(0, &job);
        say!(
            "{{\"probe\":1,\"event\":\"hostile\",\"attack\":{op},\"status\":{},\"answer\":{},\"detail\":{}}}",
            out.status,
            out.value,
            out.detail
        );
        ok &= out.status == status::OK && out.value & answer::RECOVERED != 0;
    }
    ok
}
