use std::sync::Arc;

use crate::kvm::{IoAddress, Ioeventfd, IoeventfdSpec, KvmError, VmIoctls};
use crate::pci::{Space, Window};

use super::NotifyPath;
use super::kick::Kick;
use super::layout::{NOTIFY_STRIDE, NotifySpace};

/// The ioeventfds of one device. What should be armed follows from the live queues, the address of the BAR and the
/// configured path; only [`Doorbells::reconcile`] arms and disarms.
#[derive(Debug)]
pub(super) struct Doorbells {
    vm: Arc<dyn VmIoctls>,
    kicks: Arc<[Kick]>,
    space: NotifySpace,
    path: NotifyPath,
    /// The driver accepted NOTIFICATION_DATA.
    notification_data: bool,
    window: Option<Window>,
    live: Vec<bool>,
    armed: Vec<Option<Ioeventfd>>,
}

impl Doorbells {
    pub(super) fn new(vm: Arc<dyn VmIoctls>, kicks: Arc<[Kick]>, path: NotifyPath) -> Doorbells {
        let queues = kicks.len();
        let armed = (0..queues).map(|_| None).collect();
        let space = NotifySpace::of(path);
        Doorbells {
            vm,
            kicks,
            space,
            path,
            notification_data: false,
            window: None,
            live: vec![false; queues],
            armed,
        }
    }

    /// The path in force.
    pub(super) fn path(&self) -> NotifyPath {
        self.path
    }

    pub(super) fn set_path(&mut self, path: NotifyPath) -> Result<(), KvmError> {
        self.path = path;
        self.reconcile()
    }

    /// A window of the device appeared. If it holds the registers, every live queue checks its ring once: while a driver
    /// moves the BAR under load, nothing is decoded, and a kick stored then is lost.
    pub(super) fn mapped(&mut self, window: Window) -> Result<(), KvmError> {
        if window.bar != self.space.place().0 {
            return Ok(());
        }
        self.window = Some(window);
        let armed = self.reconcile();
        for (kick, _) in self.kicks.iter().zip(&self.live).filter(|(_, live)| **live) {
            kick.self_kick();
        }
        armed
    }

    /// A window disappeared: nothing is armed in it when this returns.
    pub(super) fn unmapped(&mut self, window: Window) -> Result<(), KvmError> {
        if self.window == Some(window) {
            self.window = None;
        }
        self.reconcile()
    }

    /// Sets whether kicks carry 32 bits, which the driver decides before a queue takes kicks.
    pub(super) fn set_notification_data(&mut self, on: bool) {
        self.notification_data = on;
    }

    /// Sets which queues take kicks.
    pub(super) fn set_live(&mut self, live: Vec<bool>) -> Result<(), KvmError> {
        self.live = live;
        self.reconcile()
    }

    /// The match of the ioeventfd armed for `queue`; `None`: none is armed.
    pub(super) fn armed(&self, queue: usize) -> Option<IoeventfdSpec> {
        Some(self.armed.get(queue)?.as_ref()?.spec())
    }

    fn wanted(&self, queue: usize) -> Option<IoeventfdSpec> {
        let (window, (_, offset)) = (self.window?, self.space.place());
        if !self.live[queue] {
            return None;
        }
        let at = window.base + offset + queue as u64 * NOTIFY_STRIDE;
        let address = match window.space {
            Space::Mmio => IoAddress::Mmio(at),
            Space::Pio => IoAddress::Pio(u16::try_from(at).ok()?),
        };
        Some(IoeventfdSpec {
            address,
            matching: self.kicks[queue].matching(self.path, self.notification_data)?,
        })
    }

    /// Makes what is armed match what should be. Disarms first, so that an address is free before it is used again. A
    /// doorbell that cannot be armed costs speed, not kicks: they come by exit. Returns the first error.
    fn reconcile(&mut self) -> Result<(), KvmError> {
        let wanted: Vec<_> = (0..self.kicks.len()).map(|queue| self.wanted(queue)).collect();
        for (queue, wanted) in wanted.iter().enumerate() {
            if self.armed[queue].is_some() && self.armed(queue) != *wanted {
                self.kicks[queue].set_disarmed();
                self.armed[queue] = None;
            }
        }
        let mut result = Ok(());
        for (queue, wanted) in wanted.into_iter().enumerate() {
            let (None, Some(spec)) = (&self.armed[queue], wanted) else { continue };
            let kick = &self.kicks[queue];
            match Ioeventfd::new(self.vm.clone(), spec, kick.event().clone()) {
                Ok(doorbell) => {
                    self.armed[queue] = Some(doorbell);
                    kick.set_armed(spec.matching);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

#[cfg(test)]
#[path = "doorbells_tests.rs"]
mod tests;
