//! The probe: a guest of a few thousand lines of nothing but virtio-blk, which times each ring. See README.md.
//!
//! Everything here runs in ring 3; ring 0 is tables.s, stubs.s and entry.s. build.rs of doorbell compiles it with
//! plain rustc and embeds the result.
#![no_std]
#![no_main]

#[path = "../../src/bench/probe_abi.rs"]
#[allow(dead_code, missing_docs)]
mod abi;
mod boot;
mod cpu;
mod rt;
mod text;

use abi::{CONTROL, Control};
use core::mem::offset_of;

/// Entered by every CPU on its own stack, at ring 3, with interrupts on.
#[unsafe(no_mangle)]
extern "C" fn ring3_main(cpu: u64) -> ! {
    cpu::store::<u32>(CONTROL + offset_of!(Control, text_port) as u64, 0x3f8);
    say!("probe: hello from ring 3, cpu {cpu}, start info {:x?}", boot::start_info());
    cpu::out8(0xf4, 0);
    cpu::stop()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    say!("{{\"probe\":1,\"event\":\"panic\",\"text\":\"{info}\"}}");
    cpu::store::<u64>(abi::TRAP, 0x100);
    cpu::stop()
}
