use std::path::PathBuf;

use super::MachineError;
use super::boot::Kernel;
use super::cpuid_mask::CpuModel;
use super::layout::{self, MIB, RAM_MAX, RAM_MIN, VCPUS_MAX};
use super::memory::RamBacking;
use super::serial::Console;

/// The description of a machine.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// The kernel to boot.
    pub kernel: Kernel,
    /// Initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Number of vCPUs, 1 to [`layout::VCPUS_MAX`].
    pub cpus: u8,
    /// Which features of the host's CPU they have.
    pub cpu_model: CpuModel,
    /// RAM in bytes, [`layout::RAM_MIN`] to [`layout::RAM_MAX`], a multiple of 1 MiB.
    pub memory: u64,
    /// The console that the serial port is connected to.
    pub console: Console,
    /// The host CPUs to pin the vCPUs to, in order. vCPUs beyond the end of the list are not pinned.
    pub vcpu_pins: Vec<Option<usize>>,
    /// Whether the guest's time-stamp counter equals the host's, if KVM supports that. Otherwise it begins at 0.
    pub host_tsc: bool,
    /// The kind of host memory behind the RAM.
    pub backing: RamBacking,
    /// Whether it has the debug exit port, [`layout::DEBUG_EXIT_PORT`].
    pub debug_exit: bool,
    /// It follows a machine that its guest has reset: the console's file is continued, not cut.
    pub follows: bool,
}

impl MachineConfig {
    /// Returns the smallest machine that boots `kernel`: one vCPU, the least RAM, no console, no initrd.
    pub fn new(kernel: Kernel) -> MachineConfig {
        MachineConfig {
            kernel,
            initrd: None,
            cmdline: String::new(),
            cpus: 1,
            cpu_model: CpuModel::Masked,
            memory: layout::RAM_MIN,
            console: Console::Off,
            vcpu_pins: Vec::new(),
            host_tsc: false,
            backing: RamBacking::default(),
            debug_exit: false,
            follows: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), MachineError> {
        if !(1..=VCPUS_MAX).contains(&self.cpus) {
            let why = format!("{} vCPUs are not possible; use 1 to {VCPUS_MAX}", self.cpus);
            return Err(MachineError::Config(why));
        }
        if !(RAM_MIN..=RAM_MAX).contains(&self.memory) || !self.memory.is_multiple_of(MIB) {
            return Err(MachineError::Config(format!(
                "{} bytes of memory are not possible; use 128 MiB to 8 GiB, in whole MiB",
                self.memory
            )));
        }
        Ok(())
    }
}
