use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Gsi, Irqfd, KvmError, VmIoctls};
use crate::host::Locked;

/// One IOAPIC pin, shared by the devices wired to it: active while any of them asserts it.
#[derive(Debug)]
pub struct Line {
    vm: Arc<dyn VmIoctls>,
    gsi: Gsi,
    asserted: Mutex<u32>,
}

impl Line {
    /// The pin behind `gsi`, inactive.
    pub fn new(vm: Arc<dyn VmIoctls>, gsi: Gsi) -> Line {
        Line { vm, gsi, asserted: Mutex::new(0) }
    }

    /// The GSI of the pin.
    pub fn gsi(&self) -> Gsi {
        self.gsi
    }

    /// Returns the system calls that it took.
    fn change(&self, by: i32) -> u64 {
        let mut asserted = self.asserted.locked();
        let before = *asserted > 0;
        *asserted = asserted.saturating_add_signed(by);
        let after = *asserted > 0;
        if before != after {
            // Cannot fail on a VM with an in-kernel irqchip.
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
    /// A level irqfd: KVM lowers the pin at EOI and signals the resamplefd; the device raises it again if it still
    /// has cause.
    Resample,
}

/// What [`Level::set_cause`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether the guest was notified.
    pub notified: bool,
    /// System calls made.
    pub calls: u64,
}

/// One device's level interrupt: asserted while the device has cause and the guest has enabled it.
///
/// Any thread may change either; one lock orders them.
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
    /// `IrqLine`: this device holds the pin up.
    holding: bool,
    /// `Resample`, while enabled.
    irqfd: Option<Irqfd>,
}

impl Level {
    /// A level interrupt on `line`, disabled.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn new(line: Arc<Line>, path: LevelPath) -> Result<Level, KvmError> {
        let event = || EventFd::new(EFD_NONBLOCK).map_err(KvmError::EventFd);
        let inner = Inner { path, enabled: false, cause: false, holding: false, irqfd: None };
        Ok(Level { line, event: Arc::new(event()?), resample: event()?, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.locked()
    }

    /// The path in force.
    pub fn path(&self) -> LevelPath {
        self.lock().path
    }

    /// The guest enables or disables the interrupt (INTx Disable, MSI-X Enable).
    ///
    /// # Errors
    /// KVM refused the level irqfd. The interrupt uses `KVM_IRQ_LINE` then.
    pub fn enable(&self, on: bool) -> Result<(), KvmError> {
        let mut inner = self.lock();
        inner.enabled = on;
        self.reconcile(&mut inner)
    }

    /// Sets whether the device has cause to interrupt.
    pub fn set_cause(&self, cause: bool) -> Told {
        let mut inner = self.lock();
        inner.cause = cause;
        let mut calls = self.hold(&mut inner);
        let notified = cause && inner.enabled;
        if notified && inner.irqfd.is_some() {
            // Raising a pin that is up changes nothing.
            let _ = self.event.write(1);
            calls += 1;
        }
        Told { notified, calls }
    }

    /// The eventfd that KVM signals at EOI; poll it and call [`Level::resampled`].
    pub fn resample_event(&self) -> &EventFd {
        &self.resample
    }

    /// KVM lowered the pin at EOI: raises it again if there is still cause.
    pub fn resampled(&self) {
        let _ = self.resample.read();
        let inner = self.lock();
        if inner.irqfd.is_some() && inner.cause {
            let _ = self.event.write(1);
        }
    }

    /// Makes the host match `enabled`, `cause` and `path`.
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
            // Taking the last level irqfd off a pin lowers it (irqfd_resampler_shutdown).
            let _ = self.event.read();
        }
        self.hold(inner);
        result
    }

    /// Holds the pin up or lets it go, as `enabled`, `cause` and `path` say. Returns the system calls that it took.
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
