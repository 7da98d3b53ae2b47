//! Poweroff and reset by the guest: the ACPI sleep registers, the keyboard controller's reset pulse, and the port on
//! which the guest's kernel reports a panic.
//!
//! A guest that jumps to the firmware's reset vector is reset as well. Linux does so on a machine with
//! hardware-reduced ACPI and without EFI (reboot_type BOOT_EFI, then BOOT_BIOS, arch/x86/kernel/reboot.c).
//! The reset control register, port 0xCF9, is in [`super::pci_root::ConfigPorts`], whose range it shares.

use vm_memory::{Bytes, GuestAddress};

use super::MachineError;
use super::bus::BusDevice;
use super::exit::{ExitLatch, ExitReason};
use super::layout::{RESET_PORT, RESET_VALUE, SLEEP_TYPE_S5, boot};
use super::memory::Ram;
use crate::host::log;

/// Writes code to the reset vector that stores to the reset control register, as firmware finally does.
///
/// # Errors
/// RAM ends below the reset vector. No configuration within the limits causes this.
pub fn write_reset_vector(ram: &Ram) -> Result<(), MachineError> {
    let [low, high] = RESET_PORT.to_le_bytes();
    // mov al, RESET_VALUE; mov dx, RESET_PORT; out dx, al; hlt; jmp to the hlt
    let code = [0xb0, RESET_VALUE, 0xba, low, high, 0xee, 0xf4, 0xeb, 0xfd];
    ram.write_slice(&code, GuestAddress(boot::RESET_VECTOR)).map_err(|e| MachineError::Host(e.to_string()))
}

/// Sleep control and status registers (ACPI 6.4, 4.8.3.7).
pub struct SleepRegisters(pub ExitLatch);

impl BusDevice for SleepRegisters {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        const SLEEP_ENABLE: u8 = 1 << 5;
        if let (0, &[value, ..]) = (offset, data)
            && value & SLEEP_ENABLE != 0
            && value >> 2 & 7 == SLEEP_TYPE_S5
        {
            self.0.request(ExitReason::PowerOff);
        }
    }
}

/// pvpanic. A read returns the events that it supports; Linux's driver of that name writes events.
pub struct PanicPort(pub ExitLatch);

impl BusDevice for PanicPort {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = PanicPort::PANICKED | PanicPort::CRASH_KERNEL;
        }
    }

    fn write(&self, _: u64, data: &[u8]) {
        match data.first() {
            Some(event) if event & PanicPort::PANICKED != 0 => self.0.request(ExitReason::Panicked),
            // The guest continues with a kernel that saves the memory of the first one.
            Some(event) if event & PanicPort::CRASH_KERNEL != 0 => {
                log::warn("guest", format_args!("its kernel panicked; its crash kernel goes on"));
            }
            _ => {}
        }
    }
}

impl PanicPort {
    const PANICKED: u8 = 1;
    const CRASH_KERNEL: u8 = 2;
}

/// Port 0x64. It reads as a controller that is ready and has no data.
pub struct KeyboardReset(pub ExitLatch);

impl BusDevice for KeyboardReset {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _: u64, data: &[u8]) {
        const PULSE_RESET: u8 = 0xfe;
        if data.first() == Some(&PULSE_RESET) {
            self.0.request(ExitReason::Reset);
        }
    }
}
