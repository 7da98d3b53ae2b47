//! The processor as ring 3 sees it: time, memory words that others write, and ring 0's services through INT3.

use core::arch::asm;

#[derive(Clone, Copy)]
#[repr(u64)]
enum Service {
    Out8 = 0,
    Out16 = 1,
    Out32 = 2,
    In8 = 3,
    In16 = 4,
    In32 = 5,
    Text = 6,
    Halt = 7,
    Stop = 8,
}

fn service(which: Service, value: u64, port: u16, address: u64) -> u64 {
    let result;
    // SAFETY: the gate of vector 3 leads to stubs.s. It changes no registers but RAX, RCX and RSI, writes no memory of
    // ours, and runs on the ring-0 stack.
    unsafe {
        asm!("int3", inout("rax") which as u64 => result, inout("rcx") value => _,
             in("rdx") port as u64, inout("rsi") address => _)
    };
    result
}

pub fn out8(port: u16, value: u8) {
    service(Service::Out8, value as u64, port, 0);
}

pub fn out16(port: u16, value: u16) {
    service(Service::Out16, value as u64, port, 0);
}

pub fn out32(port: u16, value: u32) {
    service(Service::Out32, value as u64, port, 0);
}

pub fn in8(port: u16) -> u8 {
    service(Service::In8, 0, port, 0) as u8
}

pub fn in16(port: u16) -> u16 {
    service(Service::In16, 0, port, 0) as u16
}

pub fn in32(port: u16) -> u32 {
    service(Service::In32, 0, port, 0) as u32
}

/// Writes all of `text` to `port` in one call of ring 0.
pub fn out_text(port: u16, text: &[u8]) {
    service(Service::Text, text.len() as u64, port, text.as_ptr() as u64);
}

/// Executes HLT until an interrupt comes, unless the u64 at `address` differs from `value` already.
pub fn halt_while(address: u64, value: u64) {
    service(Service::Halt, value, 0, address);
}

/// Stops this CPU for ever.
pub fn stop() -> ! {
    loop {
        service(Service::Stop, 0, 0, 0);
    }
}

/// Reads the TSC by RDTSCP, which waits for earlier instructions.
#[inline(always)]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtscp", out("eax") low, out("edx") high, out("ecx") _, options(nostack)) };
    (high as u64) << 32 | low as u64
}

#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

/// Spins for `ticks` of the TSC.
pub fn delay(ticks: u64) {
    let from = tsc();
    while tsc().wrapping_sub(from) < ticks {
        pause();
    }
}

/// Reads a word that a device, the host or ring 0 may write.
#[inline(always)]
pub fn load<T: Copy>(address: u64) -> T {
    // SAFETY: every address below 4 GiB is mapped, and callers pass no others and read only integers.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes a word that a device, the host or ring 0 may read. Callers keep to the areas of probe_map.rs and to
/// device registers.
#[inline(always)]
pub fn store<T: Copy>(address: u64, value: T) {
    // SAFETY: as `load`; no Rust object lies at those addresses.
    unsafe { (address as *mut T).write_volatile(value) }
}

/// Orders earlier stores before later loads (StoreLoad).
#[inline(always)]
pub fn fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
