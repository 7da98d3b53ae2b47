//! The one place that arms and disarms a device's interrupts.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_NORESIZE;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::{Locked, log};
use crate::kvm::{Gsi, KvmError, Routes, Vector, VectorState, VmIoctls, readable};
use crate::vfio::device::eventfd_poller::{EventfdPoller, PolledEventfd};
use crate::vfio::device::intx::Intx;
use crate::vfio::device::irq_history::IrqHistory;
use crate::vfio::device::vector_report::{Signals, VectorReport};
use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex};
use crate::vfio::{Bdf, IrqPath};

/// The kind of interrupt that the guest has enabled, without the state of single vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All kinds are off.
    Nothing,
    /// INTx, level triggered.
    Intx,
    /// MSI with this many vectors.
    Msi(usize),
    /// MSI-X with a table of this many.
    Msix(usize),
}

/// An MSI or MSI-X vector: two eventfds.
///
/// The first is [`Vector::event`]: bound to the irqfd while unmasked, and its counter is the pending bit while masked. The
/// second is read by the poller thread, which signals the first one's [`Vector`]: there the interrupt becomes pending, or is
/// delivered if the vector has been unmasked meanwhile (or always, with `irq=user`). So no interrupt is lost, in whatever
/// order the device fires, the guest masks, and VFIO switches eventfds.
#[derive(Debug)]
struct ArmedVector {
    vector: Arc<Vector>,
    second: Arc<EventFd>,
    bound: Signals,
    through_vmm: Arc<AtomicU64>,
    _polled: PolledEventfd,
}

#[derive(Debug)]
struct ArmedVectors {
    index: IrqIndex,
    /// Whether VFIO has enabled the index.
    enabled: bool,
    /// By vector; created at the first unmask.
    all: Vec<Option<ArmedVector>>,
}

#[derive(Debug)]
enum Armed {
    Nothing,
    Intx(Intx),
    Vectors(ArmedVectors),
}

impl Armed {
    fn is(&self, wanted: Wanted) -> bool {
        match (self, wanted) {
            (Armed::Nothing, Wanted::Nothing) | (Armed::Intx(_), Wanted::Intx) => true,
            (Armed::Vectors(vectors), Wanted::Msi(count)) => {
                vectors.index == IrqIndex::Msi && vectors.all.len() == count
            }
            (Armed::Vectors(vectors), Wanted::Msix(_)) => vectors.index == IrqIndex::Msix,
            _ => false,
        }
    }
}

/// The interrupts of one device: what is armed, and [`VectorTable::reconcile`], which makes that match the guest.
#[derive(Debug)]
pub struct VectorTable {
    bdf: Bdf,
    fd: Arc<dyn DeviceFd>,
    vm: Arc<dyn VmIoctls>,
    routes: Arc<Routes>,
    path: IrqPath,
    /// The GSI of its INTx pin.
    intx: Gsi,
    // Declared before the poller, so dropped before it: armed vectors are registered there.
    armed: Mutex<Armed>,
    history: Mutex<IrqHistory>,
    poller: EventfdPoller,
    warned: AtomicBool,
}

impl VectorTable {
    /// A table in which nothing is armed.
    pub fn new(
        bdf: Bdf,
        fd: Arc<dyn DeviceFd>,
        (vm, routes): (Arc<dyn VmIoctls>, Arc<Routes>),
        path: IrqPath,
        intx: Gsi,
        poller: EventfdPoller,
    ) -> VectorTable {
        let (armed, warned) = (Mutex::new(Armed::Nothing), AtomicBool::new(false));
        let history = Mutex::new(IrqHistory::new(bdf));
        VectorTable { bdf, fd, vm, routes, path, intx, armed, history, poller, warned }
    }

    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.armed.locked()
    }

    /// The poller that reads eventfds for the VMM.
    pub fn poller(&self) -> &EventfdPoller {
        &self.poller
    }

    /// Makes what is armed match the guest: the kind of interrupt, then the vectors in `changes`. At most one routing commit,
    /// and one `VFIO_DEVICE_SET_IRQS` for each run of neighbouring vectors.
    pub fn reconcile(&self, wanted: Wanted, changes: &[(usize, VectorState)]) {
        let mut armed = self.lock();
        if !armed.is(wanted) {
            self.disarm(&mut armed);
            match wanted {
                Wanted::Nothing => {}
                Wanted::Intx => {
                    let intx = Intx::arm(&*self.fd, self.vm.clone(), self.intx, self.path, &self.poller);
                    match intx {
                        Ok(intx) => *armed = Armed::Intx(intx),
                        Err(error) => self.warn(&format!("INTx does not work: {error}")),
                    }
                }
                Wanted::Msi(count) => *armed = Armed::Vectors(ArmedVectors::new(IrqIndex::Msi, count)),
                Wanted::Msix(count) => *armed = Armed::Vectors(ArmedVectors::new(IrqIndex::Msix, count)),
            }
            self.history().armed();
        }
        if let Armed::Vectors(vectors) = &mut *armed {
            self.change(vectors, changes);
        }
    }

    /// The pending bit of a vector.
    pub fn pending(&self, n: usize) -> bool {
        match &*self.lock() {
            Armed::Vectors(vectors) => vectors.all.get(n).and_then(Option::as_ref).is_some_and(|armed| {
                armed.vector.pending() || armed.vector.state().masked && readable(&armed.second)
            }),
            _ => false,
        }
    }

    /// The vectors that are or were armed, with their counts.
    pub fn report(&self) -> Vec<VectorReport> {
        let armed = self.lock();
        let now = self.report_armed(&armed);
        self.history().report(now)
    }

    fn history(&self) -> MutexGuard<'_, IrqHistory> {
        self.history.locked()
    }

    fn report_armed(&self, armed: &Armed) -> Vec<VectorReport> {
        match armed {
            Armed::Nothing => Vec::new(),
            Armed::Intx(intx) => vec![VectorReport {
                vector: 0,
                index: IrqIndex::Intx,
                armed: true,
                signals: if self.path == IrqPath::Kernel { Signals::Kernel } else { Signals::Vmm },
                direct: self.path == IrqPath::Kernel,
                masked: false,
                gsi: Some(self.intx),
                through_vmm: intx.through_vmm(),
                host: 0,
            }],
            Armed::Vectors(vectors) => {
                let report = |(vector, armed): (usize, &Option<ArmedVector>)| {
                    let armed = armed.as_ref()?;
                    Some(VectorReport {
                        vector,
                        index: vectors.index,
                        armed: true,
                        signals: armed.bound,
                        direct: self.path == IrqPath::Kernel && armed.vector.via_irqfd(),
                        masked: armed.vector.state().masked,
                        gsi: armed.vector.gsi().map(|(gsi, _)| gsi),
                        through_vmm: armed.through_vmm.load(Ordering::Relaxed),
                        host: 0,
                    })
                };
                vectors.all.iter().enumerate().filter_map(report).collect()
            }
        }
    }

    fn disarm(&self, armed: &mut Armed) {
        let index = match armed {
            Armed::Nothing => return,
            Armed::Intx(_) => IrqIndex::Intx,
            Armed::Vectors(vectors) => vectors.index,
        };
        let report = self.report_armed(armed);
        self.history().disarming(report);
        // Disarm the device first; irqfds and GSIs are released with the value.
        if let Err(error) = self.fd.disable(index) {
            self.warn(&format!("{} cannot be disabled: {error}", index.name()));
        }
        *armed = Armed::Nothing;
    }

    fn change(&self, vectors: &mut ArmedVectors, changes: &[(usize, VectorState)]) {
        for &(n, state) in changes {
            if let Some(place @ None) = vectors.all.get_mut(n)
                && (!state.masked || vectors.index == IrqIndex::Msi)
            {
                match self.arm() {
                    Ok(armed) => *place = Some(armed),
                    Err(error) => self.warn(&error.to_string()),
                }
            }
        }
        let batch: Vec<(&Vector, VectorState)> = changes
            .iter()
            .filter_map(|&(n, state)| Some((&*vectors.all.get(n)?.as_ref()?.vector, state)))
            .collect();
        for (n, _) in changes {
            if let Some(Some(armed)) = vectors.all.get(*n) {
                armed.drain();
            }
        }
        // Deassigns irqfds, commits routes, assigns irqfds. A vector without irqfd goes through the VMM.
        if let Err(error) = Vector::apply(&batch) {
            self.warn(&error.to_string());
        }
        let mut dirty = Vec::new();
        for &(n, state) in changes {
            let Some(Some(armed)) = vectors.all.get_mut(n) else { continue };
            let direct = !state.masked && self.path == IrqPath::Kernel && armed.vector.via_irqfd();
            let bound = if direct { Signals::Kernel } else { Signals::Vmm };
            if armed.bound != bound {
                armed.bound = bound;
                dirty.push(n);
            }
        }
        self.bind(vectors, dirty);
    }

    /// Gives VFIO the eventfds of the vectors in `dirty`.
    fn bind(&self, vectors: &mut ArmedVectors, mut dirty: Vec<usize>) {
        if !vectors.enabled {
            // Enables the index. If vectors cannot be added later (NORESIZE), all are set now, unarmed ones as holes.
            // Otherwise at least the first is set, because the kernel does not enable an index without vectors.
            let fixed = self.fd.irq_info(vectors.index).flags & VFIO_IRQ_INFO_NORESIZE != 0;
            let first = if fixed { vectors.all.len() } else { 1 };
            dirty.retain(|&n| n >= first);
            vectors.enabled = self.set(vectors, 0, first);
            if !vectors.enabled {
                return;
            }
        }
        dirty.sort_unstable();
        for run in dirty.chunk_by(|a, b| a + 1 == *b) {
            self.set(vectors, run[0], run.len());
        }
    }

    fn set(&self, vectors: &ArmedVectors, start: usize, count: usize) -> bool {
        let fds: Vec<_> = vectors
            .all
            .iter()
            .skip(start)
            .take(count)
            .map(|l| l.as_ref().map_or(-1, ArmedVector::fd))
            .collect();
        let set = self.fd.set_eventfds(vectors.index, start as u32, &fds);
        if let Err(error) = &set {
            let name = vectors.index.name();
            self.warn(&format!("{count} {name} vector(s) from {start} on cannot be armed: {error}"));
        }
        set.is_ok()
    }

    fn arm(&self) -> Result<ArmedVector, KvmError> {
        let direct = self.path == IrqPath::Kernel;
        let vector = Arc::new(Vector::new(self.vm.clone(), self.routes.clone(), direct)?);
        let second = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(KvmError::EventFd)?);
        let through_vmm = Arc::new(AtomicU64::new(0));
        let (to, count) = (vector.clone(), through_vmm.clone());
        let watch = self.poller.watch(second.clone(), move || {
            count.fetch_add(1, Ordering::Relaxed);
            if to.via_irqfd() {
                to.signal_irqfd();
            } else {
                to.signal_msi();
            }
        })?;
        Ok(ArmedVector { vector, second, bound: Signals::Off, through_vmm, _polled: watch })
    }

    /// Prints a warning, once: a guest could trigger it again and again.
    fn warn(&self, what: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            log::warn(self.bdf, format_args!("{what}; interrupts of this device may be lost"));
        }
    }
}

impl Drop for VectorTable {
    fn drop(&mut self) {
        let mut armed = self.lock();
        self.disarm(&mut armed);
    }
}

impl ArmedVectors {
    fn new(index: IrqIndex, count: usize) -> ArmedVectors {
        ArmedVectors { index, enabled: false, all: (0..count).map(|_| None).collect() }
    }
}

impl ArmedVector {
    /// Moves interrupts that came while masked, and that the poller has not read yet, to the pending bit, so that unmasking
    /// delivers them once.
    fn drain(&self) {
        if self.vector.state().masked && self.second.read().is_ok() {
            self.through_vmm.fetch_add(1, Ordering::Relaxed);
            let _ = self.vector.event().write(1);
        }
    }

    fn fd(&self) -> i32 {
        match self.bound {
            Signals::Off => -1,
            Signals::Kernel => self.vector.event().as_raw_fd(),
            Signals::Vmm => self.second.as_raw_fd(),
        }
    }
}

#[cfg(test)]
#[path = "vector_table_tests.rs"]
mod tests;
