use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_memory::GuestMemoryMmap;

use tracing::info;

use crate::backend::Backend;
use crate::dataplane::{
    BlockParams, CompletePath, DeviceInterrupts, Interrupt, ModerationSwitch, QueueCounters, QueueLoop,
    RunningQueue,
};
use crate::host::events::hex;
use crate::host::{Locked, log};
use crate::kvm::{KvmError, Level, LevelPath, Line, Routes, Vector, VectorState, VmIoctls};
use crate::pci::{Bars, ConfigSpace, Identity, Msix};

use super::block::{BlkConfig, config_space, writeback_after};
use super::common::{Common, DRIVER_OK};
use super::device_status::DeviceStatus;
use super::doorbells::Doorbells;
use super::kick::Kick;
use super::layout::{self, NotifySpace};
use super::queue::QueueRegs;
use super::{NotifyPath, VirtioError};

const VENDOR: u16 = 0x1af4;
/// 0x1040 plus the virtio device ID of a block device (virtio 1.2, 4.1.2.1).
const DEVICE: u16 = 0x1042;
const CLASS_SCSI_STORAGE: u32 = 0x01_0000;

/// Makes the backend of queue n.
pub type Backends = Box<dyn Fn(u16) -> io::Result<Box<dyn Backend>> + Send + Sync>;

/// A virtio-blk device on a PCI bus (virtio 1.2, 4.1 and 5.2).
///
/// # Locks
/// 1. `turn`: one vCPU at a time starts and stops queues. Held while it waits for I/O threads and the main loop.
///    Only `VirtioBlk::reconcile` and `drop` take it; never the main loop or an I/O thread.
/// 2. `state`: everything else; held briefly, never while waiting for a thread. The main loop may take it.
/// 3. Locks of [`crate::kvm`] (vectors, then routes).
///
/// An I/O thread that runs a queue takes only the third kind; it reports through `DeviceStatus`, which has none. Kicks by
/// exit, ISR reads and status bits of the device take no lock at all.
pub struct VirtioBlk {
    pub(super) config: BlkConfig,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) loops: Vec<Arc<dyn QueueLoop>>,
    pub(super) backends: Backends,
    pub(super) block: Arc<BlockParams>,
    pub(super) device_status: Arc<DeviceStatus>,
    pub(super) interrupts: Arc<DeviceInterrupts>,
    pub(super) kicks: Arc<[Kick]>,
    pub(super) counters: Vec<Arc<QueueCounters>>,
    pub(super) notify: NotifySpace,
    pub(super) config_interrupt: Interrupt,
    pub(super) moderation: Arc<ModerationSwitch>,
    pub(super) turn: Mutex<()>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) pci: ConfigSpace,
    pub(super) bars: Bars,
    pub(super) msix: Msix,
    /// Offsets of these capabilities; MSI-X is hidden by a level path.
    pub(super) msix_at: Option<usize>,
    pub(super) window_at: usize,
    pub(super) common: Common,
    pub(super) doorbells: Doorbells,
    pub(super) slots: Vec<Slot>,
    /// The configuration changed under a driver that has not set DRIVER_OK yet: it is told then.
    pub(super) config_news: bool,
    /// The driver asked for a reset that is not over.
    pub(super) resetting: bool,
    /// The last error of a host call; the device works without what it asked for.
    pub(super) last_error: Option<String>,
}

/// A queue, running or not.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) running: Option<Box<dyn RunningQueue>>,
    /// The backend of a queue that does not run.
    pub(super) backend: Option<Box<dyn Backend>>,
    /// It could not be started; it is tried again only after a reset.
    pub(super) failed: bool,
}

impl VirtioBlk {
    /// Makes a device that no driver uses yet. `loops[n % loops.len()]` runs queue n; its backend comes from `backends`.
    /// It interrupts by `intx` while MSI-X is off: the driver left it off, or a level path hides it.
    ///
    /// # Errors
    /// The configuration is invalid, file descriptors ran out, or a backend could not be made.
    pub fn new(
        config: BlkConfig,
        vm: Arc<dyn VmIoctls>,
        routes: Arc<Routes>,
        memory: Arc<GuestMemoryMmap>,
        loops: Vec<Arc<dyn QueueLoop>>,
        backends: Backends,
        intx: Option<Arc<Line>>,
    ) -> Result<Arc<VirtioBlk>, VirtioError> {
        let problem = config.problem();
        let no_loop = || loops.is_empty().then(|| format!("{} has no I/O thread", config.name));
        if let Some(problem) = problem.or_else(no_loop) {
            return Err(VirtioError::Config(problem));
        }
        let queues = config.queues;
        let kvm = |source| VirtioError::Kvm { name: config.name.clone(), source };

        let level_path = match config.complete {
            CompletePath::Resample => LevelPath::Resample,
            _ => LevelPath::IrqLine,
        };
        let interrupt_pin = u8::from(intx.is_some());
        let intx = intx.map(|line| Level::new(line, level_path)).transpose().map_err(kvm)?;
        let via_irqfd = config.complete != CompletePath::SignalMsi;
        let vectors = (0..=queues)
            .map(|_| Ok(Arc::new(Vector::new(vm.clone(), routes.clone(), via_irqfd)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(kvm)?;
        let interrupts = DeviceInterrupts::new(vectors, intx, config.complete);
        let kicks: Arc<[Kick]> = (0..queues).map(Kick::new).collect::<Result<_, _>>().map_err(kvm)?;
        let slots = (0..queues)
            .map(|queue| {
                let fail = |source| VirtioError::Backend { name: config.name.clone(), queue, source };
                Ok(Slot { backend: Some(backends(queue).map_err(fail)?), ..Slot::default() })
            })
            .collect::<Result<_, VirtioError>>()?;

        let notify = NotifySpace::of(config.notify);
        let mut pci = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: DEVICE,
            subsystem_vendor: VENDOR,
            subsystem: DEVICE,
            class: CLASS_SCSI_STORAGE,
            revision: 1,
            interrupt_pin,
        });
        let bars = Bars::new(&mut pci, &layout::bars(notify, queues));
        for structure in layout::structures(notify, queues) {
            pci.add_capability(&structure)?;
        }
        let window_at = pci.add_capability(&layout::window())?.into();
        let msix = Msix::new(queues + 1);
        let (table, pba) = layout::msix_places();
        let msix_at = if config.complete.is_level() {
            None
        } else {
            Some(pci.add_capability(&msix.capability(table, pba))?.into())
        };

        let config_interrupt = interrupts.config_interrupt();
        let regs =
            (0..queues).map(|_| QueueRegs::new(config.queue_size, interrupts.queue_interrupt())).collect();
        let state = State {
            pci,
            bars,
            msix,
            msix_at,
            window_at,
            common: Common::new(config.features(), regs, config_interrupt.clone()),
            doorbells: Doorbells::new(vm, kicks.clone(), config.notify),
            slots,
            config_news: false,
            resetting: false,
            last_error: None,
        };
        Ok(Arc::new(VirtioBlk {
            block: Arc::new(config.params()),
            moderation: ModerationSwitch::new(config.moderation),
            device_status: Arc::new(DeviceStatus::new(config_interrupt.clone())),
            counters: (0..queues).map(|_| Arc::default()).collect(),
            config,
            memory,
            loops,
            backends,
            interrupts,
            kicks,
            notify,
            config_interrupt,
            turn: Mutex::new(()),
            state: Mutex::new(state),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// Switches how kicks reach the host, also on a live device: kicks in between come by exit, and none is lost.
    ///
    /// # Errors
    /// [`VirtioError::OtherSpace`] between a path in memory and `pio`: the driver has read where the registers are.
    pub fn set_notify_path(&self, path: NotifyPath) -> Result<(), VirtioError> {
        let mut state = self.state();
        let name = || self.config.name.clone();
        if path != NotifyPath::Exit && NotifySpace::of(path) != self.notify {
            let place = if self.notify == NotifySpace::Memory { "memory" } else { "I/O ports" };
            let from = state.doorbells.path();
            return Err(VirtioError::OtherSpace { name: name(), from, to: path, place });
        }
        info!(target: "virtio", device = &*self.config.name, notify = %path, "path switched");
        state.doorbells.set_path(path).map_err(|source| VirtioError::Kvm { name: name(), source })
    }

    /// Switches how completions reach the guest, also on a live device: none is lost.
    ///
    /// # Errors
    /// As [`DeviceInterrupts::set_path`].
    pub fn set_complete_path(&self, path: CompletePath) -> Result<(), String> {
        self.interrupts.set_path(path)?;
        info!(target: "virtio", device = &*self.config.name, complete = %path, "path switched");
        self.interrupts_changed(&self.state());
        Ok(())
    }

    /// Tells the queues that run that their interrupts may go another way now.
    pub(super) fn interrupts_changed(&self, state: &State) {
        state
            .slots
            .iter()
            .filter_map(|slot| slot.running.as_ref())
            .for_each(|queue| queue.interrupt_changed());
    }

    /// A driver's store to the common configuration.
    pub(super) fn common_write(&self, offset: u64, data: &[u8]) {
        let effect = {
            let mut state = self.state();
            let before = state.common.status();
            let effect = state.common.write(offset, data);
            let (device, status) = (&*self.config.name, state.common.status());
            if status != before {
                info!(target: "virtio", device, status = hex(status), "driver status");
            }
            if effect.reset {
                info!(target: "virtio", device, status = hex(status), "reset asked for");
            }
            if effect.negotiated {
                info!(target: "virtio", device, features = hex(state.common.features()), "features accepted");
                self.set_writeback(writeback_after(state.common.features()));
            }
            // Until the reset is done, the status register reads non-zero (4.1.4.3.1); an unused device is done at once.
            state.resetting |= effect.reset;
            if effect.vector {
                self.interrupts_changed(&state);
            }
            let ready = state.common.status() & DRIVER_OK != 0;
            if ready && std::mem::take(&mut state.config_news) {
                self.config_interrupt.deliver();
            }
            effect
        };
        if effect.reset || effect.changed {
            self.reconcile();
        }
    }

    /// Sets the capacity in sectors of 512 bytes, and tells a driver by the configuration interrupt. The backend must serve
    /// that much already.
    pub fn set_capacity(&self, sectors: u64) {
        // The lock is held from the store to the new generation. A driver that reads the capacity in two parts reads the
        // generation behind them, which waits for the lock (virtio 1.2, 2.5.3 and 4.1.4.3.1).
        let mut state = self.state();
        if self.block.capacity.swap(sectors, Ordering::AcqRel) == sectors {
            return;
        }
        self.device_status.config_changed();
        match state.common.status() {
            0 => {}
            status if status & DRIVER_OK != 0 => self.config_interrupt.deliver(),
            // It may have read the old capacity, but a device is silent before DRIVER_OK.
            _ => state.config_news = true,
        }
    }

    /// Size in sectors of 512 bytes.
    pub fn capacity(&self) -> u64 {
        self.block.capacity.load(Ordering::Acquire)
    }

    pub(super) fn set_writeback(&self, on: bool) {
        if self.block.writeback.swap(on, Ordering::AcqRel) != on {
            self.device_status.config_changed();
        }
    }

    /// The present `virtio_blk_config`.
    pub(super) fn device_config(&self) -> [u8; layout::DEVICE_LEN] {
        config_space(&self.config, &self.block)
    }

    /// Records the error of a host call; the device works without what it asked for.
    pub(super) fn note(&self, state: &mut State, error: Option<KvmError>) {
        if let Some(error) = error {
            if state.last_error.is_none() {
                log::warn(&self.config.name, format_args!("{error}"));
            }
            state.last_error = Some(error.to_string());
        }
    }

    /// Applies the guest's MSI-X changes to the vectors: one batch, at most one routing commit.
    pub(super) fn apply_vectors(&self, changes: &[(usize, VectorState)]) {
        let (device, vectors) = (&*self.config.name, self.interrupts.vectors());
        for (vector, VectorState { message, masked }) in changes {
            let (address, data) = (hex(message.address), hex(message.data));
            info!(target: "virtio", device, vector, masked, address, data, "MSI-X entry");
        }
        let changes: Vec<(&Vector, _)> =
            changes.iter().filter_map(|&(n, state)| Some((&**vectors.get(n)?, state))).collect();
        if let Err(error) = Vector::apply(&changes) {
            let what = format_args!("{error}; its interrupts go by KVM_SIGNAL_MSI");
            log::warn(&self.config.name, what);
            // An interrupt that a thread has queued for its next wait reaches an eventfd without an irqfd: woken afterwards, the
            // thread sends it as a message.
            self.kicks.iter().for_each(|kick| kick.self_kick());
        }
    }
}
