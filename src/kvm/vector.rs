use super::eventfd::{EFD_NONBLOCK, EventFd, readable};
use super::sync::{Arc, AtomicBool, Locked, Mutex, MutexGuard, Ordering};
use super::{Gsi, Irqfd, KvmError, MsiMessage, Routes, VmIoctls};

/// What the guest asked of one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorState {
    /// Where the interrupt goes.
    pub message: MsiMessage,
    /// Whether it must wait: the entry's mask bit, the function mask, or MSI-X being off.
    pub masked: bool,
}

impl Default for VectorState {
    fn default() -> VectorState {
        VectorState { message: MsiMessage::default(), masked: true }
    }
}

/// One edge interrupt towards the guest: an eventfd, the GSI and MSI route behind it, and the irqfd that joins them.
///
/// Masked means that no irqfd is assigned, so the eventfd's counter *is* the pending bit: whoever signals writes the
/// eventfd without looking at the mask, the hot path takes no lock, and nothing is lost, because assigning an irqfd
/// delivers what the counter holds. Unmasking sets the route first and assigns second; masking deassigns and leaves
/// the route, so that an irqfd never lives without one.
///
/// Any thread may signal; state changes come from vCPU threads and are serialized by a lock that
/// [`Vector::signal_msi`] shares, so a `KVM_SIGNAL_MSI` never overtakes a mask.
#[derive(Debug)]
pub struct Vector {
    vm: Arc<dyn VmIoctls>,
    routes: Arc<Routes>,
    event: Arc<EventFd>,
    /// Read by the hot path: false until the vector may be signalled through its eventfd.
    via_irqfd: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: VectorState,
    gsi: Option<Gsi>,
    irqfd: Option<Irqfd>,
}

/// What became of a [`Vector::signal_msi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// A CPU took it.
    Delivered,
    /// The vector is masked: it is pending now.
    Pending,
    /// KVM found no CPU for it, or refused.
    Refused,
}

impl Vector {
    /// A masked vector. `via_irqfd`: whether unmasking takes a GSI and assigns an irqfd; without, it can only be
    /// signalled by message.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn new(vm: Arc<dyn VmIoctls>, routes: Arc<Routes>, via_irqfd: bool) -> Result<Vector, KvmError> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(KvmError::EventFd)?;
        let inner = Inner { state: VectorState::default(), gsi: None, irqfd: None };
        Ok(Vector {
            vm,
            routes,
            event: Arc::new(event),
            via_irqfd: AtomicBool::new(via_irqfd),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.locked()
    }

    /// Rings by eventfd: delivered by the kernel if unmasked, pending if masked. No lock, one system call.
    pub fn signal_irqfd(&self) {
        // Fails only when the counter would pass 2^64 - 2: then it is pending already.
        let _ = self.event.write(1);
    }

    /// Rings by `KVM_SIGNAL_MSI`, or makes the vector pending if it is masked.
    pub fn signal_msi(&self) -> Signalled {
        let inner = self.lock();
        if inner.state.masked {
            let _ = self.event.write(1);
            return Signalled::Pending;
        }
        match self.vm.signal_msi(inner.state.message) {
            Ok(true) => Signalled::Delivered,
            Ok(false) | Err(_) => Signalled::Refused,
        }
    }

    /// Whether [`Vector::signal_irqfd`] reaches the guest once the vector is unmasked.
    pub fn via_irqfd(&self) -> bool {
        self.via_irqfd.load(Ordering::Acquire)
    }

    /// Lets the vector be signalled through its eventfd from now on, on a live device. There is no way back: a
    /// thread may be just about to write the eventfd, and it must find an irqfd there.
    ///
    /// # Errors
    /// No free GSI, or the kernel refused; signalling by message works on.
    pub fn enable_irqfd(&self) -> Result<(), KvmError> {
        let mut inner = self.lock();
        if self.via_irqfd.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !inner.state.masked {
            self.route(&mut inner)?;
            self.routes.commit()?;
            self.join(&mut inner)?;
        }
        self.via_irqfd.store(true, Ordering::Release);
        Ok(())
    }

    /// The pending bit, read without consuming it.
    pub fn pending(&self) -> bool {
        let inner = self.lock();
        inner.state.masked && readable(&self.event)
    }

    /// What the guest last asked for.
    pub fn state(&self) -> VectorState {
        self.lock().state
    }

    /// The GSI it holds, and whether an irqfd is assigned to it now.
    pub fn gsi(&self) -> Option<(Gsi, bool)> {
        let inner = self.lock();
        inner.gsi.map(|gsi| (gsi, inner.irqfd.is_some()))
    }

    /// The eventfd, for someone else to signal (a VFIO device, an io_uring).
    pub fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    /// Makes the host match what the guest asks of these vectors, with at most one routing commit.
    ///
    /// # Errors
    /// A vector whose irqfd could not be had falls back to `KVM_SIGNAL_MSI` (its `via_irqfd` turns false), and the
    /// first error is returned for the log.
    pub fn apply(changes: &[(&Vector, VectorState)]) -> Result<(), KvmError> {
        let mut failed = None;
        // 1. Irqfds off where masked: from here their eventfds only count.
        for (vector, new) in changes {
            let mut inner = vector.lock();
            inner.state = *new;
            if new.masked {
                inner.irqfd = None;
            } else if vector.via_irqfd()
                && let Err(error) = vector.route(&mut inner)
            {
                vector.via_irqfd.store(false, Ordering::Release);
                failed.get_or_insert(error);
            }
        }
        // 2. Routes, all at once. A failed commit leaves the vectors without irqfd.
        let committed = match changes.first() {
            Some((vector, _)) => vector.routes.commit(),
            None => Ok(()),
        };
        // 3. Irqfds on: assigning delivers what was pending.
        for (vector, new) in changes {
            let mut inner = vector.lock();
            // Another vCPU may have masked it since.
            if new.masked || inner.state.masked {
                continue;
            }
            let usable = vector.via_irqfd() && committed.is_ok();
            if !usable || vector.join(&mut inner).is_err() {
                vector.via_irqfd.store(false, Ordering::Release);
                if vector.event.read().is_ok() {
                    let _ = vector.vm.signal_msi(inner.state.message);
                }
            }
        }
        committed.map_or_else(Err, |()| failed.map_or(Ok(()), Err))
    }

    /// Back to power-on: masked, nothing pending, GSI given back.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.state = VectorState::default();
        inner.irqfd = None;
        if let Some(gsi) = inner.gsi.take() {
            self.routes.release(gsi);
        }
        let _ = self.event.read();
    }

    fn route(&self, inner: &mut Inner) -> Result<(), KvmError> {
        let gsi = match inner.gsi {
            Some(gsi) => gsi,
            None => *inner.gsi.insert(self.routes.allocate()?),
        };
        self.routes.set(gsi, inner.state.message);
        Ok(())
    }

    fn join(&self, inner: &mut Inner) -> Result<(), KvmError> {
        if let (None, Some(gsi)) = (&inner.irqfd, inner.gsi) {
            inner.irqfd = Some(Irqfd::new(self.vm.clone(), gsi, self.event.clone())?);
        }
        Ok(())
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        self.reset();
    }
}
