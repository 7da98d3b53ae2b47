//! A [`VmIoctls`] for tests. It records what the ioctls set, and delivers interrupts as the kernel would.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, kvm_irq_routing_entry};

use super::{Gsi, IoeventfdSpec, MemoryRange, MsiMessage, VmIoctls};
use crate::host::Locked;

/// How an interrupt reached the fake guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Through an irqfd and the MSI route of its GSI.
    Irqfd(MsiMessage),
    /// By `KVM_SIGNAL_MSI`.
    SignalMsi(MsiMessage),
    /// By `KVM_IRQ_LINE`.
    Line(Gsi, bool),
    /// A write to an irqfd whose GSI has no route: the kernel drops it.
    Lost(Gsi),
}

#[derive(Debug, Default)]
struct State {
    ioeventfds: Vec<(IoeventfdSpec, RawFd)>,
    irqfds: Vec<(Gsi, RawFd)>,
    routing: Vec<kvm_irq_routing_entry>,
    routing_calls: u64,
    deliveries: Vec<Delivery>,
    memory: Vec<(u32, MemoryRange)>,
    refuses_irqfds: bool,
}

/// The fake VM.
#[derive(Debug, Default)]
pub struct FakeVm(Mutex<State>);

impl FakeVm {
    /// Returns a VM in which nothing is registered.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<FakeVm> {
        Arc::new(FakeVm::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.locked()
    }

    /// Returns the ioeventfds that are registered now.
    pub fn ioeventfds(&self) -> Vec<IoeventfdSpec> {
        self.lock().ioeventfds.iter().map(|&(spec, _)| spec).collect()
    }

    /// Returns the GSIs that have an irqfd now.
    pub fn irqfds(&self) -> Vec<Gsi> {
        self.lock().irqfds.iter().map(|&(gsi, _)| gsi).collect()
    }

    /// Returns the routing table that was set last.
    pub fn routing(&self) -> Vec<kvm_irq_routing_entry> {
        self.lock().routing.clone()
    }

    /// Returns how often the routing table was set.
    pub fn routing_calls(&self) -> u64 {
        self.lock().routing_calls
    }

    /// Returns the memory slots that were set, by number.
    pub fn memory(&self) -> Vec<(u32, MemoryRange)> {
        let mut memory = self.lock().memory.clone();
        memory.sort_by_key(|&(number, _)| number);
        memory
    }

    /// Makes `KVM_IRQFD` fail from now on.
    pub fn refuse_irqfds(&self) {
        self.lock().refuses_irqfds = true;
    }

    /// Lets every irqfd whose counter is above 0 deliver, as `irqfd_wakeup` does. Removes and returns all deliveries so
    /// far.
    pub fn take_deliveries(&self) -> Vec<Delivery> {
        let mut state = self.lock();
        state.run_irqfds();
        std::mem::take(&mut state.deliveries)
    }
}

impl State {
    fn run_irqfds(&mut self) {
        for i in 0..self.irqfds.len() {
            let (gsi, fd) = self.irqfds[i];
            let mut count = 0u64;
            // SAFETY: reads 8 bytes into a u64; the eventfds under test are non-blocking.
            if unsafe { libc::read(fd, (&raw mut count).cast(), 8) } == 8 {
                let delivery = self.route(gsi).map_or(Delivery::Lost(gsi), Delivery::Irqfd);
                self.deliveries.push(delivery);
            }
        }
    }

    fn route(&self, gsi: Gsi) -> Option<MsiMessage> {
        let entry = self.routing.iter().find(|e| e.gsi == gsi && e.type_ == KVM_IRQ_ROUTING_MSI)?;
        // SAFETY: `type_` shows that the union holds an MSI.
        let msi = unsafe { entry.u.msi };
        Some(MsiMessage {
            address: u64::from(msi.address_hi) << 32 | u64::from(msi.address_lo),
            data: msi.data,
        })
    }
}

impl VmIoctls for FakeVm {
    fn ioeventfd(&self, spec: &IoeventfdSpec, fd: RawFd, assign: bool) -> io::Result<()> {
        let mut state = self.lock();
        let found = state.ioeventfds.iter().position(|(known, _)| known == spec);
        match (assign, found) {
            (true, Some(_)) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
            (true, None) => {
                state.ioeventfds.push((*spec, fd));
                Ok(())
            }
            (false, Some(at)) => {
                state.ioeventfds.remove(at);
                Ok(())
            }
            (false, None) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn irqfd(&self, gsi: u32, fd: RawFd, _resample: Option<RawFd>, assign: bool) -> io::Result<()> {
        let mut state = self.lock();
        if assign {
            if state.refuses_irqfds {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            if state.irqfds.iter().any(|&(_, known)| known == fd) {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            state.irqfds.push((gsi, fd));
        }
        state.run_irqfds();
        if !assign {
            state.irqfds.retain(|&known| known != (gsi, fd));
        }
        Ok(())
    }

    fn set_gsi_routing(&self, entries: &[kvm_irq_routing_entry]) -> io::Result<()> {
        let mut state = self.lock();
        state.run_irqfds();
        state.routing = entries.to_vec();
        state.routing_calls += 1;
        Ok(())
    }

    fn signal_msi(&self, message: MsiMessage) -> io::Result<bool> {
        self.lock().deliveries.push(Delivery::SignalMsi(message));
        Ok(true)
    }

    fn irq_line(&self, gsi: u32, active: bool) -> io::Result<()> {
        self.lock().deliveries.push(Delivery::Line(gsi, active));
        Ok(())
    }

    unsafe fn set_memory_slot(&self, number: u32, range: MemoryRange) -> io::Result<()> {
        let mut state = self.lock();
        state.memory.retain(|&(n, _)| n != number);
        let overlaps = |r: &MemoryRange| r.guest < range.guest + range.len && range.guest < r.guest + r.len;
        if state.memory.iter().any(|(_, r)| overlaps(r)) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if range.len > 0 {
            state.memory.push((number, range));
        }
        Ok(())
    }

    fn create_device(&self, _kind: u32) -> io::Result<OwnedFd> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}
