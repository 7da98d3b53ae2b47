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

    fn change(&self, by: i32) {
        let mut asserted = self.asserted.locked();
        let before = *asserted > 0;
        *asserted = asserted.saturating_add_signed(by);
        let after = *asserted > 0;
        if before != after {
            // Cannot fail on a VM with an in-kernel irqchip.
            let _ = self.vm.irq_line(self.gsi, after);
        }
    }
}

/// How a level interrupt reaches its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum LevelPath {
    /// `KVM_IRQ_LINE`, up and down by hand.
    IrqLine,
    /// A level irqfd: KVM lowers the pin at EOI and signals the resamplefd; the device raises it again if it still
    /// has cause.
    Resample,
}

/// One device's level interrupt: asserted as long as the device has cause and the guest has it switched on.
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
    /// `IrqLine`: we hold the line up.
    holding: bool,
    /// `Resample`, while enabled.
    irqfd: Option<Irqfd>,
}

impl Level {
    /// A level interrupt on `line`, off.
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

    /// The guest switches the interrupt on or off (INTx Disable, MSI-X Enable).
    ///
    /// # Errors
    /// The level irqfd could not be had; the interrupt goes by `KVM_IRQ_LINE` then.
    pub fn enable(&self, on: bool) -> Result<(), KvmError> {
        let mut inner = self.lock();
        inner.enabled = on;
        self.reconcile(&mut inner)
    }

    /// The device has cause to interrupt, or none any more. Answers whether the guest was told of a new cause.
    pub fn set_cause(&self, cause: bool) -> bool {
        let mut inner = self.lock();
        inner.cause = cause;
        let _ = self.reconcile(&mut inner);
        let told = cause && inner.enabled;
        if told && inner.irqfd.is_some() {
            // Raising a pin that is up already changes nothing.
            let _ = self.event.write(1);
        }
        told
    }

    /// The eventfd that KVM signals at EOI; watch it and call [`Level::resampled`].
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
        } else if !wants_irqfd {
            // Taking the last level irqfd off a pin lowers it (irqfd_resampler_shutdown).
            inner.irqfd = None;
            let _ = self.event.read();
        }
        let hold = inner.enabled && inner.cause && inner.path == LevelPath::IrqLine;
        if hold != inner.holding {
            inner.holding = hold;
            self.line.change(if hold { 1 } else { -1 });
        }
        result
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
