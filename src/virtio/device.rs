use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::GuestMemoryMmap;

use crate::backend::Backend;
use crate::dataplane::{BlockParams, CompletePath, Interrupt, InterruptLines, QueueCounters, QueueSetup};
use crate::kvm::{KvmError, Level, LevelPath, Line, Routes, Vector, VectorState, Vm};
use crate::pci::{Bars, ConfigSpace, Identity, Msix, NoRoom, VectorSink};

use super::block::{BlkConfig, config_space, writeback_after};
use super::common::{Common, DRIVER_OK, Effect};
use super::doorbells::Doorbells;
use super::health::Health;
use super::kick::Kick;
use super::layout::{self, NotifySpace};
use super::queue::QueueRegs;
use super::{NotifyPath, QueueLoop, RunningQueue};

const VENDOR: u16 = 0x1af4;
/// 0x1040 plus the virtio device ID of a block device (virtio 1.2, 4.1.2.1).
const DEVICE: u16 = 0x1042;
const CLASS_SCSI_STORAGE: u32 = 0x01_0000;

/// Makes the backend of queue n.
pub type Backends = Box<dyn Fn(u16) -> io::Result<Box<dyn Backend>> + Send + Sync>;

/// Why a device could not be made, or not be switched.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// The configuration asks for what there is not.
    #[error("{0}")]
    Config(String),
    /// KVM refused, or file descriptors ran out.
    #[error("{name}: {source}")]
    Kvm {
        /// The disk.
        name: String,
        /// Why.
        source: KvmError,
    },
    /// A queue's backend could not be made.
    #[error("{name}: no backend for queue {queue}: {source}")]
    Backend {
        /// The disk.
        name: String,
        /// The queue.
        queue: u16,
        /// errno.
        source: io::Error,
    },
    /// Capabilities too long: a mistake in this room, found by its tests.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The driver was told at start where the notify registers are.
    #[error(
        "{name} cannot switch from notify={from} to notify={to} while it exists: its notify registers are in {place}"
    )]
    OtherSpace {
        /// The disk.
        name: String,
        /// Path in force.
        from: NotifyPath,
        /// Path wanted.
        to: NotifyPath,
        /// "memory" or "I/O ports".
        place: &'static str,
    },
}

/// A virtio-blk device on a PCI bus (virtio 1.2, 4.1 and 5.2).
///
/// # Locks
/// 1. `turn`: one vCPU at a time starts and stops queues. Held while it waits for I/O threads and the main loop.
///    Only [`VirtioBlk::settle`] and `drop` take it; never the main loop or an I/O thread.
/// 2. `state`: everything else; held briefly, never while waiting for a thread. The main loop may take it.
/// 3. Locks of [`crate::kvm`] (vectors, then routes).
///
/// An I/O thread that runs a queue takes only the third kind; it reports through [`Health`], which has none. Kicks by
/// exit, ISR reads and status bits of the device take no lock at all.
pub struct VirtioBlk {
    pub(super) config: BlkConfig,
    memory: Arc<GuestMemoryMmap>,
    loops: Vec<Arc<dyn QueueLoop>>,
    backends: Backends,
    pub(super) block: Arc<BlockParams>,
    pub(super) health: Arc<Health>,
    pub(super) lines: Arc<InterruptLines>,
    pub(super) kicks: Arc<[Kick]>,
    pub(super) counters: Vec<Arc<QueueCounters>>,
    pub(super) notify: NotifySpace,
    pub(super) config_interrupt: Interrupt,
    turn: Mutex<()>,
    state: Mutex<State>,
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
    /// The driver asked for a reset that is not over.
    resetting: bool,
    /// What could not be had from the host and was done without; the last one.
    pub(super) trouble: Option<String>,
}

/// A queue's place at a loop.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) running: Option<Box<dyn RunningQueue>>,
    /// The backend of a queue that does not run.
    backend: Option<Box<dyn Backend>>,
    /// It could not be started: not tried again before a reset.
    failed: bool,
}

/// The next thing for [`VirtioBlk::settle`] to do, without the state lock.
enum Step {
    Stop(Vec<(usize, Box<dyn RunningQueue>)>),
    Start(Vec<(usize, Option<QueueSetup>)>),
    Settled,
}

impl VirtioBlk {
    /// A device without a driver. Queue n runs at `loops[n % loops.len()]`; its backend comes from `backends`. Without
    /// MSI-X, because the driver leaves it off or because a level path hides it, it interrupts by `intx`.
    ///
    /// # Errors
    /// A bad configuration, no file descriptors, or no backend.
    pub fn new(
        config: BlkConfig,
        vm: Arc<dyn Vm>,
        routes: Arc<Routes>,
        memory: Arc<GuestMemoryMmap>,
        loops: Vec<Arc<dyn QueueLoop>>,
        backends: Backends,
        intx: Option<Arc<Line>>,
    ) -> Result<Arc<VirtioBlk>, VirtioError> {
        let problem = config.problem();
        let no_loop = || loops.is_empty().then(|| format!("{} has no thread to run on", config.name));
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
        let lines = InterruptLines::new(vectors, intx, config.complete);
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

        let config_interrupt = lines.config_interrupt();
        let regs = (0..queues).map(|_| QueueRegs::new(config.queue_size, lines.queue_interrupt())).collect();
        let state = State {
            pci,
            bars,
            msix,
            msix_at,
            window_at,
            common: Common::new(config.features(), regs, config_interrupt.clone()),
            doorbells: Doorbells::new(vm, kicks.clone(), config.notify),
            slots,
            resetting: false,
            trouble: None,
        };
        Ok(Arc::new(VirtioBlk {
            block: Arc::new(config.params()),
            health: Arc::new(Health::new(config_interrupt.clone())),
            counters: (0..queues).map(|_| Arc::default()).collect(),
            config,
            memory,
            loops,
            backends,
            lines,
            kicks,
            notify,
            config_interrupt,
            turn: Mutex::new(()),
            state: Mutex::new(state),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches how kicks reach the host, on a live device too: kicks in between come by exit, none is lost.
    ///
    /// # Errors
    /// [`VirtioError::OtherSpace`] between a path in memory and `pio`: the driver was told where the registers are.
    pub fn set_notify_path(&self, path: NotifyPath) -> Result<(), VirtioError> {
        let mut state = self.state();
        let name = || self.config.name.clone();
        if path != NotifyPath::Exit && NotifySpace::of(path) != self.notify {
            let place = if self.notify == NotifySpace::Memory { "memory" } else { "I/O ports" };
            let from = state.doorbells.path();
            return Err(VirtioError::OtherSpace { name: name(), from, to: path, place });
        }
        state.doorbells.set_path(path).map_err(|source| VirtioError::Kvm { name: name(), source })
    }

    /// A driver's store to the common configuration.
    pub(super) fn common_write(&self, offset: u64, data: &[u8]) {
        let effect = {
            let mut state = self.state();
            let effect = state.common.write(offset, data);
            if effect.negotiated {
                self.set_writeback(writeback_after(state.common.features()));
            }
            // A reset of a device that was never touched is over at once; else the status reads non-zero until it is.
            state.resetting |= effect.reset;
            effect
        };
        if effect != Effect::default() {
            self.settle();
        }
    }

    pub(super) fn set_writeback(&self, on: bool) {
        if self.block.writeback.swap(on, Ordering::AcqRel) != on {
            self.health.config_changed();
        }
    }

    /// `virtio_blk_config` as it is now.
    pub(super) fn device_config(&self) -> [u8; layout::DEVICE_LEN] {
        config_space(&self.config, &self.block)
    }

    /// Makes the queues that run match what the driver asked for. Steps are decided under the state lock and done
    /// without it, because they wait for other threads; then it looks again.
    fn settle(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let step = self.next_step();
            match step {
                Step::Settled => return,
                Step::Stop(running) => self.stop(running),
                Step::Start(setups) => self.start(setups),
            }
        }
    }

    fn next_step(&self) -> Step {
        let mut state = self.state();
        if state.resetting {
            let none = vec![false; state.slots.len()];
            let armed = state.doorbells.set_live(none);
            self.note(&mut state, armed.err());
            let running =
                state.slots.iter_mut().enumerate().filter_map(|(n, slot)| Some((n, slot.running.take()?)));
            return Step::Stop(running.collect());
        }
        if state.common.status() & DRIVER_OK == 0 {
            return Step::Settled;
        }
        let State { common, slots, .. } = &mut *state;
        let due = slots
            .iter_mut()
            .zip(&common.queues)
            .enumerate()
            .filter(|(_, (slot, queue))| queue.enabled && slot.running.is_none() && !slot.failed);
        let setups: Vec<_> = due
            .map(|(n, (slot, queue))| (n, self.setup(n, queue, common.features(), slot.backend.take())))
            .collect();
        if setups.is_empty() { Step::Settled } else { Step::Start(setups) }
    }

    /// All that queue `n` needs to run; `None` if its registers are invalid or it has no backend.
    fn setup(
        &self,
        n: usize,
        queue: &QueueRegs,
        features: u64,
        backend: Option<Box<dyn Backend>>,
    ) -> Option<QueueSetup> {
        let health = self.health.clone();
        Some(QueueSetup {
            name: format!("{} queue {n}", self.config.name),
            layout: queue.layout(features)?,
            memory: self.memory.clone(),
            kick: self.kicks[n].event().clone(),
            backend: backend.or_else(|| (self.backends)(n as u16).ok())?,
            interrupt: queue.interrupt.clone(),
            block: self.block.clone(),
            counters: self.counters[n].clone(),
            broken: Arc::new(move || health.fail()),
        })
    }

    fn start(&self, setups: Vec<(usize, Option<QueueSetup>)>) {
        let started: Vec<_> = setups
            .into_iter()
            .map(|(n, setup)| (n, setup.map(|setup| self.loops[n % self.loops.len()].attach(setup))))
            .collect();
        let mut state = self.state();
        for (n, outcome) in started {
            match outcome {
                Some(Ok(running)) => state.slots[n].running = Some(running),
                refused => {
                    state.slots[n].failed = true;
                    let why = match refused {
                        Some(Err(error)) => error.to_string(),
                        _ => "its size or its alignment is not allowed, or its backend is gone".into(),
                    };
                    state.trouble = Some(format!("queue {n} cannot run: {why}"));
                    self.health.fail();
                }
            }
        }
        // Only now: the queue hears its kicks, and those from before were looked for by attach.
        let live = state.slots.iter().map(|slot| slot.running.is_some()).collect();
        let armed = state.doorbells.set_live(live);
        self.note(&mut state, armed.err());
    }

    /// Waits for the queues to drain, then finishes the reset.
    fn stop(&self, running: Vec<(usize, Box<dyn RunningQueue>)>) {
        let backends: Vec<_> = running.into_iter().map(|(n, queue)| (n, queue.detach())).collect();
        let mut state = self.state();
        for (n, backend) in backends {
            state.slots[n].backend = backend;
        }
        for slot in &mut state.slots {
            slot.failed = false;
        }
        state.common.reset();
        state.resetting = false;
        self.lines.take_isr();
        self.set_writeback(true);
        // No queue runs, so none can report any more.
        self.health.recover();
    }

    /// Remembers something that the host refused; the device does without.
    pub(super) fn note(&self, state: &mut State, error: Option<KvmError>) {
        if let Some(error) = error {
            if state.trouble.is_none() {
                eprintln!("doorbell: {}: {error}", self.config.name);
            }
            state.trouble = Some(error.to_string());
        }
    }
}

impl Drop for VirtioBlk {
    /// Stops the queues. Not on the thread of a loop that runs one of them.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let none = vec![false; state.slots.len()];
        let _ = state.doorbells.set_live(none);
        for slot in &mut state.slots {
            if let Some(running) = slot.running.take() {
                running.detach();
            }
        }
    }
}

/// Brings the guest's MSI-X wishes to the vectors.
pub(super) struct Vectors<'a>(pub(super) &'a VirtioBlk);

impl VectorSink for Vectors<'_> {
    fn apply(&self, changes: &[(usize, VectorState)]) {
        let vectors = self.0.lines.vectors();
        let changes: Vec<(&Vector, _)> =
            changes.iter().filter_map(|&(n, state)| Some((&**vectors.get(n)?, state))).collect();
        if let Err(error) = Vector::apply(&changes) {
            eprintln!("doorbell: {}: {error}; its interrupts go by KVM_SIGNAL_MSI", self.0.config.name);
        }
    }

    fn pending(&self, n: usize) -> bool {
        self.0.lines.vectors().get(n).is_some_and(|vector| vector.pending())
    }
}
