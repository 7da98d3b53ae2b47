//! The kernel's side of eventfds, irqfds and GSI routes, as far as a vector can tell (virt/kvm/eventfd.c).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use loom::sync::Mutex;

/// What src/kvm/vector.rs locks and counts with.
pub mod sync {
    pub use loom::sync::atomic::{AtomicBool, Ordering};
    pub use loom::sync::{Mutex, MutexGuard};
    pub use std::sync::Arc;

    pub trait Locked<T> {
        fn locked(&self) -> MutexGuard<'_, T>;
    }

    impl<T> Locked<T> for Mutex<T> {
        fn locked(&self) -> MutexGuard<'_, T> {
            self.lock().unwrap()
        }
    }
}

pub type Gsi = u32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    pub address: u64,
    pub data: u32,
}

#[derive(Debug)]
#[allow(dead_code)]
pub enum KvmError {
    EventFd(io::Error),
}

/// The VM: its routes, and what reached the guest.
#[derive(Debug, Default)]
pub struct Kernel {
    routes: Mutex<BTreeMap<Gsi, MsiMessage>>,
    delivered: Mutex<Vec<u32>>,
    /// Whether `KVM_IRQFD` fails from now on.
    pub refuses_irqfds: Mutex<bool>,
}

impl Kernel {
    /// The data of every message that reached the guest; 0 for one that was swallowed for want of a route.
    pub fn delivered(&self) -> Vec<u32> {
        self.delivered.lock().unwrap().clone()
    }

    fn inject(&self, gsi: Gsi) {
        let data = self.routes.lock().unwrap().get(&gsi).map_or(0, |message| message.data);
        self.delivered.lock().unwrap().push(data);
    }
}

pub trait VmIoctls: Send + Sync + fmt::Debug {
    fn signal_msi(&self, message: MsiMessage) -> io::Result<bool>;
    fn kernel(&self) -> &Kernel;
}

impl VmIoctls for Kernel {
    fn signal_msi(&self, message: MsiMessage) -> io::Result<bool> {
        self.delivered.lock().unwrap().push(message.data);
        Ok(true)
    }

    fn kernel(&self) -> &Kernel {
        self
    }
}

pub mod eventfd {
    use super::{Arc, Gsi, Mutex, VmIoctls, io};

    pub const EFD_NONBLOCK: i32 = 0;

    /// Counter and irqfd are under one lock, the wait queue's.
    #[derive(Debug)]
    pub struct EventFd(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        count: u64,
        irqfd: Option<(Arc<dyn VmIoctls>, Gsi)>,
    }

    impl State {
        /// `irqfd_wakeup`: takes the whole count, injects once.
        fn wake(&mut self) {
            if let (Some((vm, gsi)), true) = (&self.irqfd, self.count > 0) {
                self.count = 0;
                vm.kernel().inject(*gsi);
            }
        }
    }

    impl EventFd {
        pub fn new(_: i32) -> io::Result<EventFd> {
            Ok(EventFd(Mutex::new(State::default())))
        }

        pub fn write(&self, n: u64) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            state.count += n;
            state.wake();
            Ok(())
        }

        pub fn read(&self) -> io::Result<u64> {
            match std::mem::take(&mut self.0.lock().unwrap().count) {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }

        pub fn assign(&self, irqfd: Option<(Arc<dyn VmIoctls>, Gsi)>) {
            let mut state = self.0.lock().unwrap();
            state.irqfd = irqfd;
            state.wake();
        }
    }

    pub fn readable(event: &EventFd) -> bool {
        event.0.lock().unwrap().count > 0
    }
}

/// `KVM_IRQFD`; assigning delivers what is there.
#[derive(Debug)]
pub struct Irqfd(Arc<eventfd::EventFd>);

impl Irqfd {
    pub fn new(vm: Arc<dyn VmIoctls>, gsi: Gsi, event: Arc<eventfd::EventFd>) -> Result<Irqfd, KvmError> {
        if *vm.kernel().refuses_irqfds.lock().unwrap() {
            return Err(KvmError::EventFd(io::ErrorKind::OutOfMemory.into()));
        }
        event.assign(Some((vm, gsi)));
        Ok(Irqfd(event))
    }
}

impl Drop for Irqfd {
    fn drop(&mut self) {
        self.0.assign(None);
    }
}

/// `src/kvm/routes.rs`, with one GSI.
#[derive(Debug)]
pub struct Routes {
    kernel: Arc<Kernel>,
    wanted: Mutex<Option<MsiMessage>>,
}

impl Routes {
    pub fn new(kernel: Arc<Kernel>) -> Routes {
        Routes { kernel, wanted: Mutex::new(None) }
    }

    pub fn allocate(&self) -> Result<Gsi, KvmError> {
        Ok(24)
    }

    pub fn set(&self, _: Gsi, message: MsiMessage) {
        *self.wanted.lock().unwrap() = Some(message);
    }

    pub fn commit(&self) -> Result<(), KvmError> {
        let wanted = self.wanted.lock().unwrap();
        if let Some(message) = *wanted {
            self.kernel.routes.lock().unwrap().insert(24, message);
        }
        Ok(())
    }

    pub fn release(&self, gsi: Gsi) {
        self.kernel.routes.lock().unwrap().remove(&gsi);
    }
}
