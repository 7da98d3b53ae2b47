//! Interrupt controllers: the local APIC (through its low alias), one IOAPIC, and the masked 8259 pair.

use crate::abi::{LAPIC_ALIAS, TRAMPOLINE, VECTOR_STRIDE, VECTOR_TABLE, vector};
use crate::{boot, control, cpu};

const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const LINT0: u64 = 0x350;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;
const MASKED: u32 = 1 << 16;

fn read(register: u64) -> u32 {
    cpu::load(LAPIC_ALIAS + register)
}

fn write(register: u64, value: u32) {
    cpu::store(LAPIC_ALIAS + register, value);
}

/// Enables this CPU's local APIC. Masks LINT0, because SeaBIOS leaves the 8259 active behind it.
pub fn enable() {
    write(LINT0, MASKED);
    write(TIMER, MASKED | vector::WAKE);
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, 0x100 | vector::SPURIOUS);
}

/// Returns this CPU's APIC ID.
pub fn id() -> u32 {
    read(ID) >> 24
}

/// Masks every line of both 8259s.
pub fn silence_pic() {
    cpu::out8(0x21, 0xff);
    cpu::out8(0xa1, 0xff);
}

/// Sends this CPU one WAKE interrupt after about a millisecond (the APIC's clock runs at 1 GHz, as in KVM).
pub fn alarm() {
    write(TIMER_DIVIDE, 0b1011);
    write(TIMER, vector::WAKE);
    write(TIMER_COUNT, 1_000_000);
}

/// Sends one WAKE interrupt to another CPU.
pub fn wake(apic_id: u32) {
    send(apic_id, vector::WAKE);
}

fn send(apic_id: u32, command: u32) {
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND_LOW, 1 << 14 | command);
    while read(COMMAND_LOW) & 1 << 12 != 0 {
        cpu::pause();
    }
}

/// Starts a CPU by INIT and SIPI, and waits some hundred milliseconds for it. Returns whether it takes jobs.
pub fn start(apic_id: u32) -> bool {
    for (i, byte) in boot::trampoline_code().iter().enumerate() {
        cpu::store(TRAMPOLINE + i as u64, *byte);
    }
    send(apic_id, 5 << 8);
    cpu::delay(20_000_000);
    for _ in 0..2 {
        send(apic_id, 6 << 8 | (TRAMPOLINE >> 12) as u32);
        let from = cpu::tsc();
        while cpu::tsc().wrapping_sub(from) < 500_000_000 {
            if control::cpus_up() & 1 << apic_id != 0 {
                return true;
            }
            cpu::pause();
        }
    }
    false
}

/// Routes a level-triggered IOAPIC pin to a vector of a CPU.
pub fn route_pin(pin: u32, vector: u32, apic_id: u32) {
    const LEVEL: u32 = 1 << 15;
    for (register, value) in [(0x11 + 2 * pin, apic_id << 24), (0x10 + 2 * pin, LEVEL | vector)] {
        cpu::store(LAPIC_ALIAS + 0x1000, register);
        cpu::store(LAPIC_ALIAS + 0x1010, value);
    }
}

/// Returns the address of the word that counts a vector's interrupts.
pub fn count_address(vector: u32) -> u64 {
    VECTOR_TABLE + vector as u64 * VECTOR_STRIDE
}

/// Returns the last TSC that the stub of a timestamped vector read.
pub fn stamp(vector: u32) -> u64 {
    cpu::load(count_address(vector) + 8)
}
