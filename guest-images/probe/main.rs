//! The probe: a guest that consists of a virtio-blk driver and a clock. See README.md.
//!
//! All Rust code here runs in ring 3. Ring 0 is in tables.s, stubs.s and entry.s. doorbell's build.rs compiles the probe
//! with plain rustc and embeds it.
//!
//! boot: `boot` `rt` `cpu` `apic` `control` `cmdline`; the driver: `pci` `scan` `device` `setup` `msix` `queue`; blocks: `serve` `io`
//! (`slots` `torture` `wait` `samples` `pattern`) `floor` `hostile`; text mode: `script` `report` `text` `clock`.
#![no_std]
#![no_main]

#[path = "../../src/bench/probe_abi.rs"]
#[allow(dead_code, missing_docs)]
mod abi;
mod apic;
mod boot;
mod clock;
mod cmdline;
mod control;
mod cpu;
mod device;
mod floor;
mod global;
mod hostile;
mod io;
mod moves;
mod msix;
mod packed;
mod pattern;
mod pci;
mod queue;
mod report;
mod rt;
mod samples;
mod scan;
mod script;
mod serve;
mod setup;
mod slots;
mod text;
mod torture;
mod wait;

use abi::{MAGIC, MAX_CPUS, TRAP, VERSION, mode, state};

/// Every CPU starts here, on its own stack, in ring 3, with interrupts enabled.
#[unsafe(no_mangle)]
extern "C" fn ring3_main(cpu: u64) -> ! {
    let cpu = cpu as usize % MAX_CPUS;
    if cpu == 0 {
        boot();
    } else {
        apic::enable();
        control::set_up(cpu);
    }
    serve::serve(cpu)
}

/// Sets up the interrupt controllers, the bus and the other CPUs, on CPU 0. Does not return in text mode.
fn boot() {
    control::set_started(cpu::tsc());
    cmdline::keep();
    let orders = control::read();
    let hosted = orders.magic == MAGIC && orders.mode == mode::HOST;
    if hosted && orders.version != VERSION {
        control::set_state(state::FAILED);
        cpu::stop();
    }
    if !hosted {
        let port = cmdline::number("text", 0x3f8) as u16;
        control::set_text_mode(port, cmdline::number("ecam", 0), cmdline::number("bar_window", 0));
    }
    control::set_state(state::BOOTING);
    apic::silence_pic();
    apic::enable();
    let devices = scan::scan();
    control::set_up(0);
    let cpus = if hosted { orders.start_cpus as u64 } else { cmdline::number("cpus", 1) };
    for id in 1..cpus.min(MAX_CPUS as u64) {
        if !apic::start(id as u32) {
            say!("{{\"probe\":1,\"event\":\"cpu\",\"id\":{id},\"ok\":false}}");
        }
    }
    control::set_ready(cpu::tsc(), devices);
    if !hosted {
        clock::find();
        say!(
            "{{\"probe\":1,\"event\":\"ready\",\"ring\":3,\"devices\":{devices},\"cpus\":{},\"apic_id\":{},\"tsc_khz\":{}}}",
            control::cpus_up().count_ones(),
            apic::id(),
            clock::khz()
        );
        script::run();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    say!("{{\"probe\":1,\"event\":\"panic\",\"text\":\"{info}\"}}");
    cpu::store::<u64>(TRAP, 0x100);
    control::set_state(state::FAILED);
    cpu::stop()
}
