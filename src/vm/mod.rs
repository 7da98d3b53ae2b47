//! A virtual machine with its disks, I/O threads and passed-through devices.
//!
//! What lives here: the description of a VM as plain data ([`VmConfig`], [`DiskConfig`]), and [`Vm`], which builds the
//! VM from it, for `run` and for the benches. What may not: text from a command line, tables, measurements.

mod disk;
mod error;
mod plan;
mod sandbox;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

pub use disk::{DiskConfig, IoThreadChoice};
pub use error::VmError;
use plan::thread_plan;
pub use sandbox::SandboxConfig;

use crate::backend::{Backend, Disk, DiskError, Geometry};
use crate::dataplane::{
    CompletePath, DataplaneError, EventLoop, Flow, IoThread, LoopConfig, LoopHandle, Moderation, QueueLoop,
};
use crate::host::log;
use crate::kvm::MemorySlots;
use crate::machine::{ExitReason, Machine, MachineConfig, MachineError};
use crate::vfio::{Dma, Guest, Host, VfioPci, VfioSpec, VmResources};
use crate::vhost::{self, NoBackend, VhostDisk};
use crate::virtio::{Backends, BlkConfig, RemoteDisk, VirtioBlk};

/// The description of a VM.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// The machine.
    pub machine: MachineConfig,
    /// Its disks; the first one is disk0 (vda).
    pub disks: Vec<DiskConfig>,
    /// The I/O threads. A thread that no disk uses is not started.
    pub threads: Vec<ThreadConfig>,
    /// What its threads may ask of the kernel while the guest runs.
    pub sandbox: SandboxConfig,
}

/// The description of an I/O thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadConfig {
    /// The longest busy-poll before a sleep, in nanoseconds; 0 switches it off.
    pub poll_max_ns: u64,
    /// Host CPU to pin it to.
    pub cpu: Option<usize>,
}

/// A machine with its disks, ready to run. Dropped in this order: no vCPU, then no device, then no thread.
///
/// ```no_run
/// use doorbell::machine::{Console, Kernel, MachineConfig};
/// use doorbell::vm::{SandboxConfig, Vm, VmConfig};
///
/// let machine = MachineConfig {
///     cmdline: "console=ttyS0".into(),
///     console: Console::Stdio,
///     ..MachineConfig::new(Kernel::File("vmlinux".into()))
/// };
/// let (disks, threads, sandbox) = (Vec::new(), Vec::new(), SandboxConfig::off());
/// let reason = Vm::new(VmConfig { machine, disks, threads, sandbox })?.run()?;
/// println!("{reason:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Vm {
    machine: Machine,
    disks: Vec<Arc<VirtioBlk>>,
    /// What the disks are made of; `None`: another process runs its queues.
    images: Vec<Option<Arc<Disk>>>,
    vfio: Vec<Arc<VfioPci>>,
    /// The address space of the passed-through devices, and memory slots for their BARs; made with the first one.
    passthrough: Option<(Arc<Dma>, Arc<MemorySlots>)>,
    main: Option<EventLoop>,
    threads: Vec<Option<IoThread>>,
}

impl Vm {
    /// Opens the disks, starts the I/O threads, makes the machine and plugs the disks in.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn new(config: VmConfig) -> Result<Vm, VmError> {
        // Files first: most mistakes are there, and nothing has been started yet.
        let open = |disk: &DiskConfig| -> Result<_, DiskError> {
            let open = || Ok(Arc::new(Disk::open(&disk.options)?));
            disk.vhost_user.is_none().then(open).transpose()
        };
        let images = config.disks.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Vm::with_images(config, images)
    }

    /// The same with disks that are open already: those of [`Vm::images`] of a VM that the guest has reset.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn with_images(mut config: VmConfig, images: Vec<Option<Arc<Disk>>>) -> Result<Vm, VmError> {
        let disks: Vec<_> = images.iter().cloned().zip(config.disks).collect();
        let own = disks.iter().filter(|(disk, _)| disk.is_some());
        let choices: Vec<_> = own.map(|(_, d)| (d.iothread, d.options.needs_uring())).collect();
        // Another process can only map RAM that is a file.
        config.machine.backing.shared = choices.len() < disks.len();
        let plan = thread_plan(&choices, config.threads.len())?;
        let mut machine = Machine::new(config.machine)?;
        machine.before_first_run(Box::new(move || sandbox::enter(&config.sandbox)));
        let main = LoopConfig { name: "main".into(), uring: plan.main_uring, ..Default::default() };
        let main = EventLoop::new(&main)?;
        let threads = plan.threads.iter().zip(&config.threads).enumerate().map(|(n, (need, thread))| {
            let loop_config = |uring| LoopConfig {
                name: format!("iothread{n}"),
                uring,
                poll_max_ns: thread.poll_max_ns,
                cpu: thread.cpu,
            };
            need.map(|uring| IoThread::spawn(loop_config(uring), machine.exit_latch().on_death())).transpose()
        });
        let threads = threads.collect::<Result<Vec<_>, _>>()?;
        let (disks_made, vfio, passthrough, main) = (Vec::new(), Vec::new(), None, Some(main));
        let mut this = Vm { machine, disks: disks_made, images, vfio, passthrough, main, threads };
        let mut turn = 0;
        for (disk, config) in disks {
            match (disk, &config.vhost_user) {
                (Some(disk), _) => {
                    let loops = this.loops(config.iothread, turn);
                    turn += usize::from(config.queues);
                    this.plug(disk, config, loops)?;
                }
                (None, Some(socket)) => {
                    let on_death = this.machine.exit_latch().on_death();
                    let disk = VhostDisk::connect(socket, config.queues, on_death)?;
                    this.plug_vhost(&disk, config)?;
                }
                (None, None) => {}
            }
        }
        Ok(this)
    }

    /// The loops for a disk's queues. Disks that take any thread begin with different ones.
    fn loops(&self, choice: IoThreadChoice, turn: usize) -> Vec<Arc<dyn QueueLoop>> {
        let of = |thread: &IoThread| Arc::new(thread.handle().clone()) as Arc<dyn QueueLoop>;
        let main = || self.main.iter().map(|main| Arc::new(main.handle()) as Arc<dyn QueueLoop>).collect();
        match choice {
            IoThreadChoice::None => main(),
            IoThreadChoice::Index(index) => self.threads.get(index).into_iter().flatten().map(of).collect(),
            IoThreadChoice::Auto => {
                let mut all: Vec<_> = self.threads.iter().flatten().map(of).collect();
                let len = all.len().max(1);
                all.rotate_left(turn % len);
                all
            }
        }
    }

    fn plug(
        &mut self,
        disk: Arc<Disk>,
        config: DiskConfig,
        loops: Vec<Arc<dyn QueueLoop>>,
    ) -> Result<(), VmError> {
        let name = format!("disk{}", self.disks.len());
        let blk = BlkConfig {
            serial: config.serial.unwrap_or_else(|| name.clone()),
            name,
            capacity: disk.capacity_sectors(),
            readonly: disk.readonly(),
            discard: disk.supports_discard(),
            geometry: disk.geometry(),
            queues: config.queues,
            queue_size: config.queue_size,
            notify: config.notify,
            complete: config.complete,
            packed: config.packed,
            event_idx: config.event_idx,
            notification_data: config.notification_data,
            moderation: config.moderation,
            remote: None,
        };
        self.add(blk, loops, Box::new(move |_| disk.queue_backend()))
    }

    /// A disk whose queues the backend runs.
    fn plug_vhost(&mut self, disk: &Arc<VhostDisk>, config: DiskConfig) -> Result<(), VmError> {
        let name = format!("disk{}", self.disks.len());
        let remote = RemoteDisk { features: disk.features(), config: disk.config() };
        let blk = BlkConfig {
            serial: String::new(),
            name,
            capacity: remote.capacity(),
            readonly: remote.readonly(),
            discard: false,
            geometry: Geometry::MEMORY,
            queues: config.queues,
            queue_size: config.queue_size,
            notify: config.notify,
            complete: config.complete,
            packed: false,
            event_idx: config.event_idx,
            notification_data: false,
            moderation: Moderation::Off,
            remote: Some(remote),
        };
        self.add(blk, vhost::loops(disk), Box::new(|_| Ok(Box::new(NoBackend) as Box<dyn Backend>)))
    }

    fn add(
        &mut self,
        blk: BlkConfig,
        loops: Vec<Arc<dyn QueueLoop>>,
        backends: Backends,
    ) -> Result<(), VmError> {
        let complete = blk.complete;
        let (vm, routes, memory) = (self.machine.vm(), self.machine.routes(), self.machine.memory());
        let (_, line) = self.machine.next_slot()?;
        let device = VirtioBlk::new(blk, vm, routes, memory, loops, backends, Some(line))?;
        if complete == CompletePath::Resample {
            self.watch_resample(&device)?;
        }
        self.machine.add_pci_device(device.clone())?;
        self.disks.push(device);
        Ok(())
    }

    /// Passes a device of the host through to the guest. Call it before the machine runs.
    ///
    /// # Errors
    /// [`VmError::Vfio`], or no slot or no room for its BARs is left; the device is released then.
    pub fn add_vfio(&mut self, spec: VfioSpec) -> Result<(), VmError> {
        let (vm, memory) = (self.machine.vm(), self.machine.memory());
        let (dma, slots) = self.passthrough.get_or_insert_with(|| {
            let guest = Guest { vm: vm.clone(), memory };
            (Dma::new(Host::real(), Some(guest)), MemorySlots::new(vm.clone()))
        });
        let (dma, slots) = (dma.clone(), slots.clone());
        let fd = Arc::new(dma.open(spec.bdf)?);
        let (_, line) = self.machine.next_slot()?;
        let ground = VmResources { vm, routes: self.machine.routes(), slots, intx: line.gsi() };
        let (exit, lost) = (self.machine.exit_latch(), self.machine.exit_latch());
        let device = VfioPci::new(spec.bdf, fd, spec.irq, ground, Some(dma), exit.on_death())?;
        device.on_request(move || {
            log::warn(
                spec.bdf,
                format_args!("the host asked for it back (VFIO release request); stopping the VM"),
            );
            exit.request(ExitReason::Stopped);
        });
        device.on_error(move || {
            lost.request(ExitReason::Failed(format!(
                "{} has reported a fatal error (AER), so the guest would read all ones from it: see dmesg on the host",
                spec.bdf
            )));
        });
        self.machine.add_pci_device(device.clone())?;
        self.vfio.push(device);
        Ok(())
    }

    /// Returns the passed-through devices.
    pub fn vfio(&self) -> &[Arc<VfioPci>] {
        &self.vfio
    }

    /// Makes the main loop raise a level interrupt again at the guest's EOI while its cause lasts.
    fn watch_resample(&mut self, device: &VirtioBlk) -> Result<(), VmError> {
        let interrupts = device.device_interrupts().clone();
        let (Some(main), Some(intx)) = (&mut self.main, interrupts.intx()) else { return Ok(()) };
        let fail = |source| DataplaneError::Loop { name: "main".into(), source };
        // SAFETY: borrowed for the duplication only; the event is alive in `interrupts`.
        let event = unsafe { BorrowedFd::borrow_raw(intx.resample_event().as_raw_fd()) };
        let event = event.try_clone_to_owned().map_err(fail)?;
        let at_eoi = move || {
            if let Some(intx) = interrupts.intx() {
                intx.resampled();
            }
            Flow::Continue
        };
        main.add_source(event, Box::new(at_eoi)).map_err(fail)?;
        Ok(())
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The disks.
    pub fn disks(&self) -> &[Arc<VirtioBlk>] {
        &self.disks
    }

    /// What the disks are made of, in their order; `None` for those whose queues another process runs.
    pub fn images(&self) -> &[Option<Arc<Disk>>] {
        &self.images
    }

    /// Returns the handles of the I/O threads that run.
    pub fn io_loops(&self) -> Vec<LoopHandle> {
        self.threads.iter().flatten().map(|thread| thread.handle().clone()).collect()
    }

    /// Returns the main loop, to which the caller may add sources; `None` once it has run.
    pub fn main_loop(&mut self) -> Option<&mut EventLoop> {
        self.main.as_mut()
    }

    /// Runs the machine to its end, once.
    ///
    /// # Errors
    /// See [`Machine::run`].
    pub fn run(&mut self) -> Result<ExitReason, MachineError> {
        match self.main.take() {
            Some(main) => self.machine.run(main),
            None => Ok(ExitReason::Stopped),
        }
    }
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
