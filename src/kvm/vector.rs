use super::eventfd::{EFD_NONBLOCK, EventFd, readable};
use super::sync::{Arc, AtomicBool, Locked, Mutex, MutexGuard, Ordering};
use super::{Gsi, Irqfd, KvmError, MsiMessage, Routes, VmIoctls};

/// The guest's settings for one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorState {
    /// The message that the vector sends.
    pub message: MsiMessage,
    /// Whether interrupts must wait: the entry's mask bit or the function mask is set, or MSI-X is off.
    pub masked: bool,
}

impl Default for VectorState {
    fn default() -> VectorState {
        VectorState { message: MsiMessage::default(), masked: true }
    }
}

/// One edge interrupt towards the guest: an eventfd, the GSI and MSI route behind it, and the irqfd that joins them.
///
/// While a vector is masked, no irqfd is assigned, so the eventfd's counter *is* the pending bit. A signalling thread
/// writes the eventfd without reading the mask, so the hot path takes no lock. Nothing is lost, because assigning an
/// irqfd delivers what the counter holds. Unmasking sets the route first and assigns the irqfd second; masking
/// deassigns the irqfd and keeps the route. So an irqfd always has a route.
///
/// Any thread may signal. State changes come from vCPU threads and take a lock. [`Vector::signal_msi`] takes the same
/// lock, so no `KVM_SIGNAL_MSI` is sent after the vector was masked.
#[derive(Debug)]
pub struct Vector {
    vm: Arc<dyn VmIoctls>,
    routes: Arc<Routes>,
    event: Arc<EventFd>,
    /// Whether the vector may be signalled through its eventfd. The hot path reads it.
    via_irqfd: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: VectorState,
    gsi: Option<Gsi>,
    irqfd: Option<Irqfd>,
}

/// The result of [`Vector::signal_msi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// A CPU took the interrupt.
    Delivered,
    /// The vector is masked; the interrupt is pending now.
    Pending,
    /// KVM found no CPU for the message, or refused it.
    Refused,
}

impl Vector {
    /// Returns a masked vector. With `via_irqfd`, unmasking allocates a GSI and assigns an irqfd. Without it, only
    /// [`Vector::signal_msi`] reaches the guest.
    ///
    /// # Errors
    /// The process has no free file descriptor (EMFILE).
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

    /// Signals the eventfd, with one system call and no lock. If the vector is unmasked, the kernel delivers the
    /// interrupt; otherwise the vector becomes pending.
    pub fn signal_irqfd(&self) {
        // This fails only if the counter would pass 2^64 - 2, and then the vector is pending already.
        let _ = self.event.write(1);
        if !self.via_irqfd() {
            // It fell back to messages after the caller had looked. No fence is needed: either the fallback's read of the
            // eventfd came later and found this write, or it came before, and then this load sees what it stored first.
            self.deliver_stranded();
        }
    }

    /// Sends as a message what was written to the eventfd of an unmasked vector that has no irqfd any more. Returns how many
    /// system calls it made.
    pub fn deliver_stranded(&self) -> u64 {
        let inner = self.lock();
        if inner.state.masked || inner.irqfd.is_some() {
            return 0;
        }
        match self.event.read() {
            Ok(_) => {
                let _ = self.vm.signal_msi(inner.state.message);
                2
            }
            Err(_) => 1,
        }
    }

    /// Sends the message with `KVM_SIGNAL_MSI`. If the vector is masked, makes it pending instead.
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

    /// Returns whether [`Vector::signal_irqfd`] reaches the guest once the vector is unmasked.
    pub fn via_irqfd(&self) -> bool {
        self.via_irqfd.load(Ordering::Acquire)
    }

    /// Allows [`Vector::signal_irqfd`] from now on, on a running device. This cannot be undone, because a thread may be
    /// about to write the eventfd, and the irqfd must still be there when it does.
    ///
    /// # Errors
    /// There is no free GSI, or the kernel refused. [`Vector::signal_msi`] still works.
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

    /// Returns the pending bit without consuming it.
    pub fn pending(&self) -> bool {
        let inner = self.lock();
        inner.state.masked && readable(&self.event)
    }

    /// Returns the settings that were applied last.
    pub fn state(&self) -> VectorState {
        self.lock().state
    }

    /// Returns the vector's GSI, if it has one, and whether an irqfd is assigned to it now.
    pub fn gsi(&self) -> Option<(Gsi, bool)> {
        let inner = self.lock();
        inner.gsi.map(|gsi| (gsi, inner.irqfd.is_some()))
    }

    /// Returns the eventfd, which a VFIO device or an io_uring may signal.
    pub fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    /// Makes the host's state match the guest's settings for these vectors, with at most one routing commit.
    ///
    /// # Errors
    /// A vector that gets no irqfd falls back to `KVM_SIGNAL_MSI`: its `via_irqfd` becomes false. The first error is
    /// returned, for the log. Whoever leaves writes of the eventfd to others ([`Vector::event`]) must then have
    /// [`Vector::deliver_stranded`] called once these are made.
    pub fn apply(changes: &[(&Vector, VectorState)]) -> Result<(), KvmError> {
        let mut failed = None;
        // 1. Deassign the irqfds of masked vectors. From now on their eventfds only count.
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
        // 2. Commit all routes with one call, before any irqfd needs them. If it fails, the vectors get no irqfd.
        let committed = match changes.first() {
            Some((vector, _)) => vector.routes.commit(),
            None => Ok(()),
        };
        // 3. Assign the irqfds of unmasked vectors. This delivers what was pending.
        for (vector, new) in changes {
            let mut inner = vector.lock();
            // Another vCPU may have masked the vector since.
            if new.masked || inner.state.masked {
                continue;
            }
            let usable = vector.via_irqfd() && committed.is_ok();
            let joined = if usable {
                vector.join(&mut inner).map_err(|error| _ = failed.get_or_insert(error))
            } else {
                Err(())
            };
            if joined.is_err() {
                // The order matters: see `signal_irqfd`.
                vector.via_irqfd.store(false, Ordering::Release);
                if vector.event.read().is_ok() {
                    let _ = vector.vm.signal_msi(inner.state.message);
                }
            }
        }
        committed.map_or_else(Err, |()| failed.map_or(Ok(()), Err))
    }

    /// Resets the vector: masked, nothing pending, its GSI freed.
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
