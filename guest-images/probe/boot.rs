//! The assembly: tables, ring-0 stubs, entries. Addresses come from the ABI file, so each is written once.

use crate::abi;
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    ".set TABLES, {tables}",
    ".set TSS, {tss}",
    ".set STUBS, {stubs}",
    ".set RING0_STACKS, {stacks}",
    ".set RING3_ENTRY, {entry}",
    ".set LAPIC_ALIAS, {lapic}",
    ".set VECTORS, {vectors}",
    ".set ISR_TABLE, {isr}",
    ".set TRAP, {trap}",
    ".set CONTROL_STATE, {state}",
    ".set CONTROL_MODE, {mode}",
    ".set CONTROL_TEXT_PORT, {text}",
    ".set STAMPED, {stamped}",
    ".set INTX, {intx}",
    ".set INTX_END, {end}",
    ".set TRAMPOLINE, {trampoline}",
    include_str!("tables.s"),
    include_str!("stubs.s"),
    include_str!("entry.s"),
    tables = const abi::PAGE_TABLES,
    tss = const abi::TSS,
    stubs = const abi::STUBS,
    stacks = const abi::RING0_STACKS,
    entry = const abi::RING3_ENTRY,
    lapic = const abi::LAPIC_ALIAS,
    vectors = const abi::VECTOR_TABLE,
    isr = const abi::ISR_TABLE,
    trap = const abi::TRAP,
    state = const abi::CONTROL + offset_of!(abi::Control, state) as u64,
    mode = const abi::CONTROL + offset_of!(abi::Control, mode) as u64,
    text = const abi::CONTROL + offset_of!(abi::Control, text_port) as u64,
    stamped = const abi::vector::STAMPED,
    intx = const abi::vector::INTX,
    end = const abi::vector::END,
    trampoline = const abi::TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    /// Physical address of the PVH start information, from EBX at the entry; 0 without PVH.
    static pvh_start_info: u32;
    static trampoline: u8;
    static trampoline_end: u8;
}

/// Returns the address of `hvm_start_info`, if the guest started at the PVH entry.
pub fn start_info() -> Option<u64> {
    // SAFETY: written once by the entry code of CPU 0, before any Rust ran.
    let address = unsafe { core::ptr::read_volatile(&raw const pvh_start_info) };
    (address != 0).then_some(address as u64)
}

/// Returns the real-mode start code of further CPUs.
pub fn trampoline_code() -> &'static [u8] {
    let (from, to) = (&raw const trampoline as usize, &raw const trampoline_end as usize);
    // SAFETY: the two labels enclose one read-only object of the image.
    unsafe { core::slice::from_raw_parts(from as *const u8, to - from) }
}
