//! Poweroff and reset as the guest asks for them: the ACPI sleep register and the keyboard controller's reset pulse.
//! (The reset control register, port 0xCF9, is in [`super::pci_root::ConfigPorts`], whose range it shares.)

use super::bus::BusDevice;
use super::exit::{ExitLatch, ExitReason};
use super::layout::SLEEP_TYPE_S5;

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

/// Port 0x64: reads as a controller that is ready and has nothing to say.
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
