use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Gsi, Irqfd, KvmError, VmIoctls};
use crate::host::Locked;

/// One IOAPIC pin and the devices wired to it. The pin is high while at least one of them asserts it.
#[derive(Debug)]
pub struct Line {
    vm: Arc<dyn VmIoctls>,
    gsi: Gsi,
    asserted: Mutex<u32>,
}

impl Line {
    /// Returns the pin that `gsi` leads to, low.
    pub fn new(vm: Arc<dyn VmIoctls>, gsi: Gsi) -> Line {
        Line { vm, gsi, asserted: Mutex::new(0) }
    }

    /// Returns the GSI of the pin.
    pub fn gsi(&self) -> Gsi {
        self.gsi
    }

    /// Adds `by` to the number of devices that assert the pin. Returns how many system calls were made.
    fn change(&self, by: i32) -> u64 {
        let mut asserted = self.asserted.locked();
        let before = *asserted > 0;
        *asserted = asserted.saturating_add_signed(by);
        let after = *asserted > 0;
        if before != after {
            // This cannot fail on a VM with an irqchip in the kernel.
            let _ = self.vm.irq_line(self.gsi, after);
        }
        u64::from(before != after)
    }
}

/// How a level interrupt drives its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum LevelPath {
    /// `KVM_IRQ_LINE`: the VMM raises and lowers the pin.
    IrqLine,
    /// A level irqfd: at EOI, KVM lowers the pin and signals the resamplefd. The device raises the pin again if it
    /// still has cause.
    Resample,
}

/// What one call of [`Level::set_cause`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelOutcome {
    /// Whether the guest got an interrupt from this call.
    pub notified: bool,
    /// How many system calls were made.
    pub calls: u64,
}

/// One device's level interrupt: asserted while the device has cause and the guest has enabled it.
///
/// Any thread may change either condition; one lock orders the changes.
#[derive(Debug)]
pub struct Level {
    line: Arc<Line>,
    event: Arc<EventFd>,
    resample: EventFd,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: LevelPath,
    enabled: bool,
    cause: bool,
    /// With `IrqLine`: whether this device holds the pin up.
    holding: bool,
    /// With `Resample`: the level irqfd, while the interrupt is enabled.
    irqfd: Option<Irqfd>,
}

impl Level {
    /// Returns a level interrupt on `line`, disabled.
    ///
    /// # Errors
    /// The process has no free file descriptor (EMFILE).
    pub fn new(line: Arc<Line>, path: LevelPath) -> Result<Level, KvmError> {
        let event = || EventFd::new(EFD_NONBLOCK).map_err(KvmError::EventFd);
        let inner = Inner { path, enabled: false, cause: false, holding: false, irqfd: None };
        Ok(Level { line, event: Arc::new(event()?), resample: event()?, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.locked()
    }

    /// Returns the path in use.
    pub fn path(&self) -> LevelPath {
        self.lock().path
    }

    /// Enables or disables the interrupt, as the guest sets it (INTx Disable: PCI 6.2.2; MSI-X Enable: PCI 6.8.2.3).
    ///
    /// # Errors
    /// KVM refused the level irqfd. From then on the interrupt uses `KVM_IRQ_LINE`.
    pub fn enable(&self, on: bool) -> Result<(), KvmError> {
        let mut inner = self.lock();
        inner.enabled = on;
        self.reconcile(&mut inner)
    }

    /// Sets whether the device has cause to interrupt, and raises or lowers the pin.
    pub fn set_cause(&self, cause: bool) -> LevelOutcome {
        let mut inner = self.lock();
        let had_cause = std::mem::replace(&mut inner.cause, cause);
        let mut calls = self.hold(&mut inner);
        let notified = cause && inner.enabled;
        if notified && !had_cause && inner.irqfd.is_some() {
            // With a cause that was there before, the pin is up, or KVM has lowered it at EOI and `resampled` raises it again.
            let _ = self.event.write(1);
            calls += 1;
        }
        LevelOutcome { notified, calls }
    }

    /// Returns the eventfd that KVM signals at EOI. Poll it and call [`Level::resampled`].
    pub fn resample_event(&self) -> &EventFd {
        &self.resample
    }

    /// Raises the pin again if the device still has cause. Call it when KVM has lowered the pin at EOI.
    pub fn resampled(&self) {
        let _ = self.resample.read();
        let inner = self.lock();
        if inner.irqfd.is_some() && inner.cause {
            let _ = self.event.write(1);
        }
    }

    /// Makes the host's state match `enabled`, `cause` and `path`.
    fn reconcile(&self, inner: &mut Inner) -> Result<(), KvmError> {
        let mut result = Ok(());
        let wants_irqfd = inner.enabled && inner.path == LevelPath::Resample;
        if wants_irqfd && inner.irqfd.is_none() {
            let (vm, gsi) = (self.line.vm.clone(), self.line.gsi);
            match Irqfd::with_resample(vm, gsi, self.event.clone(), &self.resample) {
                Ok(irqfd) => {
                    inner.irqfd = Some(irqfd);
                    if inner.cause {
                        let _ = self.event.write(1);
                    }
                }
                Err(error) => {
                    inner.path = LevelPath::IrqLine;
                    result = Err(error);
                }
            }
        } else if !wants_irqfd && inner.irqfd.take().is_some() {
            // Removing the last level irqfd of a pin lowers the pin (irqfd_resampler_shutdown).
            let _ = self.event.read();
        }
        self.hold(inner);
        result
    }

    /// With `IrqLine`: raises or lowers the pin according to `enabled` and `cause`. Returns the number of system calls.
    fn hold(&self, inner: &mut Inner) -> u64 {
        let hold = inner.enabled && inner.cause && inner.path == LevelPath::IrqLine;
        if hold == inner.holding {
            return 0;
        }
        inner.holding = hold;
        self.line.change(if hold { 1 } else { -1 })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        let _ = self.enable(false);
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
