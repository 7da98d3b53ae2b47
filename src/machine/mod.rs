//! A small PC: what a stock Linux kernel needs to boot, and nothing else.
//!
//! What lives here: guest RAM, vCPUs and their exits, CPUID, kernel loading, ACPI, the serial port, the address map,
//! the MMIO and port buses, and the PCI host bridge, which knows devices only as [`crate::pci::PciDevice`]. What may
//! not: virtio, queues, disks.
//!
//! The machine has in-kernel local APICs and an IOAPIC (no PIC and no PIT, which hardware-reduced ACPI and kvm-clock do
//! not need), one 16550, PCI bus 0 by ECAM and by ports, and registers for poweroff and reset. Reading order:
//! [`layout`], [`Machine`], [`boot`], [`vcpu`], [`bus`], [`pci_root`].

mod acpi;
pub mod boot;
pub mod bus;
mod config;
mod console_input;
mod console_output;
pub mod cpu_state;
pub mod cpuid;
mod cpuid_mask;
mod error;
mod exit;
mod host_tsc;
mod kvm_fd;
pub mod layout;
mod memory;
mod pci_bars;
pub mod pci_root;
mod power;
mod serial;
pub mod terminal;
pub mod vcpu;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, Kvm, VmFd};

pub use boot::Kernel;
pub use config::MachineConfig;
pub use cpu_state::Entry;
pub use cpuid_mask::CpuModel;
pub use error::MachineError;
pub use exit::{ExitLatch, ExitReason};
pub(crate) use kvm_fd::create_vm;
pub use kvm_fd::open_kvm;
#[cfg(test)]
pub(crate) use memory::allocate;
pub use memory::{HugePage, Ram, RamBacking};
pub use serial::Console;

use crate::dataplane::{EventLoop, Flow};
use crate::host::sandbox;
use crate::host::thread::watched;
use crate::kvm::{KvmStats, KvmVm, Line, Routes, VmIoctls};
use crate::pci::PciDevice;
use bus::Bus;
use console_input::ConsoleInput;
use pci_root::PciRoot;
use serial::SerialPort;
use terminal::Terminal;
use vcpu::{ExitCounters, Vcpu, VcpuThreads};

/// A machine: the VM and its devices.
pub struct Machine {
    config: MachineConfig,
    kvm: Kvm,
    vm: Arc<VmFd>,
    kvm_vm: Arc<dyn VmIoctls>,
    routes: Arc<Routes>,
    ram: Arc<Ram>,
    mmio: Arc<Bus>,
    pio: Arc<Bus>,
    pci: Arc<PciRoot>,
    serial: Arc<SerialPort>,
    exit: ExitLatch,
    counters: Vec<Arc<ExitCounters>>,
    /// The IOAPIC pins that PCI INTx lines share, from [`layout::INTX_FIRST_GSI`] up.
    intx: Vec<Arc<Line>>,
    before_first_run: Option<Box<dyn FnOnce() + Send>>,
}

impl Machine {
    /// Creates the VM with its RAM, interrupt controllers, buses and serial port. No vCPU runs yet.
    ///
    /// # Errors
    /// The configuration is out of range, or the host refused a system call.
    pub fn new(config: MachineConfig) -> Result<Machine, MachineError> {
        config.check()?;
        boot::check(&config.kernel, config.initrd.as_deref())?;
        let kvm = open_kvm()?;
        let vm = Arc::new(create_vm(&kvm).map_err(|e| MachineError::kvm("KVM_CREATE_VM", e))?);
        let ram = memory::allocate(config.memory, config.backing)?;
        memory::register(&vm, &ram)?;
        // Both are for Intel CPUs without unrestricted guests. On other CPUs they have no effect.
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(|e| MachineError::kvm("KVM_SET_IDENTITY_MAP_ADDR", e))?;
        vm.set_tss_address(layout::KVM_TSS as usize).map_err(|e| MachineError::kvm("KVM_SET_TSS_ADDR", e))?;
        vm.create_irq_chip().map_err(|e| MachineError::kvm("KVM_CREATE_IRQCHIP", e))?;
        kvm_fd::mask_pic(&vm)?;

        let exit = ExitLatch::new().map_err(|e| MachineError::Host(format!("eventfd failed: {e}")))?;
        let kvm_vm: Arc<dyn VmIoctls> = Arc::new(KvmVm::new(vm.clone()));
        let limit = kvm.check_extension_int(Cap::IrqRouting).max(0) as u32;
        let routes = Arc::new(Routes::new(kvm_vm.clone(), limit));
        let serial = SerialPort::new(kvm_vm.clone(), &config.console, config.follows, exit.clone())?;
        let (mmio, pio) = (Bus::new(), Bus::new());
        let pci = PciRoot::new(mmio.clone(), pio.clone());
        let counters = (0..config.cpus).map(|_| Arc::default()).collect();
        let intx = (0..layout::INTX_LINES)
            .map(|n| Arc::new(Line::new(kvm_vm.clone(), layout::INTX_FIRST_GSI + n)))
            .collect();
        let machine = Machine {
            config,
            kvm,
            vm,
            kvm_vm,
            routes,
            ram,
            mmio,
            pio,
            pci,
            serial,
            exit,
            counters,
            intx,
            before_first_run: None,
        };
        machine.plug_platform().map_err(|e| MachineError::Host(format!("address map: {e}")))?;
        Ok(machine)
    }

    fn plug_platform(&self) -> Result<(), bus::Overlap> {
        let exit = self.exit.clone();
        let reset = Box::new(move || exit.request(ExitReason::Reset));
        self.mmio.insert(layout::ECAM_START, layout::ECAM_LEN, Arc::new(pci_root::Ecam(self.pci.clone())))?;
        let ports: [(u16, u64, Arc<dyn bus::BusDevice>); 5] = [
            (layout::SERIAL_PORT, 8, self.serial.clone()),
            (layout::PCI_CONFIG_PORT, 8, Arc::new(pci_root::ConfigPorts { root: self.pci.clone(), reset })),
            (layout::SLEEP_CONTROL_PORT, 2, Arc::new(power::SleepRegisters(self.exit.clone()))),
            (layout::PVPANIC_PORT, 1, Arc::new(power::PanicPort(self.exit.clone()))),
            (layout::KEYBOARD_PORT, 1, Arc::new(power::KeyboardReset(self.exit.clone()))),
        ];
        ports.into_iter().try_for_each(|(port, len, device)| self.pio.insert(port.into(), len, device))?;
        if self.config.debug_exit {
            let device = Arc::new(power::DebugExit(self.exit.clone()));
            self.pio.insert(layout::DEBUG_EXIT_PORT.into(), layout::DEBUG_EXIT_LEN, device)?;
        }
        Ok(())
    }

    /// Adds a device in the lowest free slot of PCI bus 0, gives its BARs addresses, and returns the slot.
    ///
    /// # Errors
    /// All slots are taken, or a BAR window is full.
    pub fn add_pci_device(&self, device: Arc<dyn PciDevice>) -> Result<u8, MachineError> {
        self.pci.add(device).map_err(|e| MachineError::Config(e.to_string()))
    }

    /// Returns the slot that the next [`Machine::add_pci_device`] takes, and the line that INTA of that slot is wired
    /// to.
    ///
    /// # Errors
    /// All slots are taken.
    pub fn next_slot(&self) -> Result<(u8, Arc<Line>), MachineError> {
        const INTA: u8 = 1;
        let slot = self.pci.free_slot().map_err(|e| MachineError::Config(e.to_string()))?;
        let line = layout::intx_gsi(slot, INTA) - layout::INTX_FIRST_GSI;
        Ok((slot, self.intx[line as usize].clone()))
    }

    /// Returns the VM-wide ioctls.
    pub fn vm(&self) -> Arc<dyn VmIoctls> {
        self.kvm_vm.clone()
    }

    /// Returns the GSI routing table.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    /// Returns guest RAM.
    pub fn memory(&self) -> Arc<Ram> {
        self.ram.clone()
    }

    /// Opens KVM's statistics of the VM, as opposed to those of its vCPUs. `None` on a kernel without them (before 5.14).
    pub fn statistics(&self) -> Option<KvmStats> {
        KvmStats::of(&*self.vm).ok().flatten()
    }

    /// Returns the MMIO bus.
    pub fn mmio(&self) -> Arc<Bus> {
        self.mmio.clone()
    }

    /// Returns the I/O port bus.
    pub fn pio(&self) -> Arc<Bus> {
        self.pio.clone()
    }

    /// Returns the latch with which any thread may end the run.
    pub fn exit_latch(&self) -> ExitLatch {
        self.exit.clone()
    }

    /// Returns a function that makes the console check its terminal again. Call it after the process was stopped and
    /// continued.
    pub fn console_waker(&self) -> impl Fn() + Send + use<> {
        let serial = self.serial.clone();
        move || _ = serial.room().write(1)
    }

    /// Returns the exit counters of each vCPU.
    pub fn exit_counters(&self) -> &[Arc<ExitCounters>] {
        &self.counters
    }

    /// Calls `prepare` on the thread that runs the machine, when everything is open, every thread has been started, and no
    /// vCPU has run.
    pub fn before_first_run(&mut self, prepare: Box<dyn FnOnce() + Send>) {
        self.before_first_run = Some(prepare);
    }

    /// Loads the kernel, starts the vCPUs, and runs `event_loop` on the calling thread until the run is over. When it
    /// returns, no vCPU runs.
    ///
    /// # Errors
    /// The kernel cannot be loaded, the host refuses a vCPU, or the loop failed.
    pub fn run(&mut self, mut event_loop: EventLoop) -> Result<ExitReason, MachineError> {
        let (config, host) =
            (&self.config, |e: std::io::Error| MachineError::Host(format!("main loop: {e}")));
        acpi::write(&self.ram, config.cpus)?;
        power::write_reset_vector(&self.ram)?;
        let boot = boot::Boot {
            ram: &self.ram,
            size: config.memory,
            kernel: &config.kernel,
            initrd: config.initrd.as_deref(),
            cmdline: &config.cmdline,
        };
        let entry = boot.load()?;
        let vcpus = self.make_vcpus(&entry)?;

        let exit = self.exit.clone();
        let event = exit.event().try_clone().map_err(host)?;
        event_loop.add_source(event_into_fd(event), Box::new(|| Flow::Stop)).map_err(host)?;
        let mut terminal = None;
        if self.config.console == Console::Stdio {
            terminal = Terminal::of_stdin();
            sandbox::on_violation(terminal::restore_if_free);
            let input = std::io::stdin().as_raw_fd();
            ConsoleInput::attach(
                &mut event_loop,
                input,
                self.serial.clone(),
                exit.clone(),
                terminal.is_some(),
            )
            .map_err(host)?;
        }
        let output = self.serial.output();
        output.map_or(Ok(()), |output| output.attach(&mut event_loop)).map_err(host)?;
        exit.set_running();
        let mut threads = VcpuThreads::start(vcpus)?;
        let prepare = self.before_first_run.take();
        watched("main", &*exit.on_death(), || {
            prepare.into_iter().for_each(|prepare| prepare());
            threads.go();
            event_loop.run().map_err(|error| format!("waiting failed: {error}"))
        });
        if exit.reason().is_none() {
            exit.request(ExitReason::Stopped);
        }
        threads.stop();
        // Leave raw mode before the wait for the last output, so that Ctrl-C can end that wait.
        drop(terminal);
        if let Some(output) = output {
            output.finish();
        }
        Ok(exit.reason().unwrap_or(ExitReason::Stopped))
    }

    fn make_vcpus(&self, entry: &Entry) -> Result<Vec<Vcpu>, MachineError> {
        let supported = cpuid::supported(&self.kvm)?;
        let mut vcpus = Vec::new();
        for (index, counters) in (0..self.config.cpus).zip(&self.counters) {
            let fd =
                self.vm.create_vcpu(index.into()).map_err(|e| MachineError::kvm("KVM_CREATE_VCPU", e))?;
            if let Ok(Some(stats)) = KvmStats::of(&fd) {
                // This fails only if the machine runs for a second time.
                let _ = counters.kvm.set(stats);
            }
            let entries =
                cpuid::for_vcpu(supported.as_slice(), index, self.config.cpus, self.config.cpu_model);
            let cpuid = CpuId::from_entries(&entries)
                .map_err(|_| MachineError::Host("the host's CPUID has too many leaves".into()))?;
            fd.set_cpuid2(&cpuid).map_err(|e| MachineError::kvm("KVM_SET_CPUID2", e))?;
            cpu_state::firmware_msrs(&fd);
            cpu_state::wire_lint(&fd)?;
            if self.config.host_tsc {
                host_tsc::use_host_tsc(&fd);
            }
            if index == 0 {
                cpu_state::start(&fd, &self.ram, entry)?;
            }
            vcpus.push(Vcpu {
                fd,
                index,
                mmio: self.mmio.view(),
                pio: self.pio.view(),
                exit: self.exit.clone(),
                counters: counters.clone(),
                pin: self.config.vcpu_pins.get(usize::from(index)).copied().flatten(),
                again: 0,
            });
        }
        Ok(vcpus)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.mmio.clear();
        self.pio.clear();
    }
}

fn event_into_fd(event: vmm_sys_util::eventfd::EventFd) -> std::os::fd::OwnedFd {
    use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
    // SAFETY: `into_raw_fd` gives up the ownership of the descriptor.
    unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) }
}
