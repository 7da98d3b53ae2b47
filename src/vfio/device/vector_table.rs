//! The one place that arms and disarms a device's interrupts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_NORESIZE;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::{Locked, log};
use crate::kvm::{Gsi, KvmError, Routes, Vector, VectorState, VmIoctls, readable};
use crate::vfio::device::armed::{Armed, ArmedVector, ArmedVectors, Wanted};
use crate::vfio::device::eventfd_poller::EventfdPoller;
use crate::vfio::device::intx::Intx;
use crate::vfio::device::irq_history::{HostCounts, IrqHistory};
use crate::vfio::device::vector_report::{Signals, VectorReport};
use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex};
use crate::vfio::{Bdf, IrqPath};

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
        // Before the lock, which a guest's masks need: the kernel takes milliseconds to make that file on a large host.
        let counts = self.host_counts();
        let armed = self.lock();
        let now = self.report_armed(&armed);
        self.history().report(now, &counts)
    }

    fn host_counts(&self) -> HostCounts {
        HostCounts::now(self.bdf)
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
        let applied = Vector::apply(&batch);
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
        if let Err(error) = applied {
            self.warn(&error.to_string());
            // What the device signalled before VFIO switched to the other eventfd.
            let changed = changes.iter().filter_map(|&(n, _)| vectors.all.get(n)?.as_ref());
            changed.filter(|a| !a.vector.via_irqfd()).for_each(|a| _ = a.vector.deliver_stranded());
        }
    }

    /// Gives VFIO the eventfds of the vectors in `dirty`.
    fn bind(&self, vectors: &mut ArmedVectors, mut dirty: Vec<usize>) {
        if !vectors.enabled {
            // Enables the index. If vectors cannot be added later (NORESIZE), all are set now, unarmed ones as holes.
            // Otherwise at least the first is set, because the kernel does not enable an index without vectors.
            let fixed = self.fd.irq_info(vectors.index).flags & VFIO_IRQ_INFO_NORESIZE != 0;
            let first = if fixed { vectors.all.len() } else { 1 };
            dirty.retain(|&n| n >= first);
            let mut left = self.set(vectors, 0, first);
            if let Ok(Some(most @ 1..)) = left {
                // With fewer than the guest asked for, the first ones work: of a disk, the first queues.
                left = self.set(vectors, 0, most as usize);
            }
            vectors.enabled = matches!(left, Ok(None));
            if !vectors.enabled {
                return;
            }
        }
        dirty.sort_unstable();
        for run in dirty.chunk_by(|a, b| a + 1 == *b) {
            let _ = self.set(vectors, run[0], run.len());
        }
    }

    /// Gives VFIO the eventfds of these vectors, and warns if it does not take them. See [`DeviceFd::set_eventfds`].
    fn set(&self, vectors: &ArmedVectors, start: usize, count: usize) -> io::Result<Option<u32>> {
        let fds: Vec<_> = vectors
            .all
            .iter()
            .skip(start)
            .take(count)
            .map(|l| l.as_ref().map_or(-1, ArmedVector::fd))
            .collect();
        let set = self.fd.set_eventfds(vectors.index, start as u32, &fds);
        let name = vectors.index.name();
        match &set {
            Ok(None) => {}
            Ok(Some(most)) => {
                self.warn(&format!(
                    "the host has {most} of {count} {name} vectors for it, the guest gets those"
                ));
            }
            Err(error) => {
                self.warn(&format!("{count} {name} vector(s) from {start} on cannot be armed: {error}"))
            }
        }
        set
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

#[cfg(test)]
#[path = "vector_table_tests.rs"]
mod tests;
