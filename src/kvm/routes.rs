use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, kvm_irq_routing_entry,
};

use tracing::info;

use super::{KvmError, MsiMessage, VmIoctls};
use crate::host::Locked;
use crate::host::events::hex;

/// A global system interrupt: the number by which KVM finds the entries of its routing table.
pub type Gsi = u32;

/// The first GSI that is not an IOAPIC pin.
pub const FIRST_MSI_GSI: Gsi = 24;

/// What a GSI leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A pin of the in-kernel PIC (`chip` 0 master, 1 slave).
    Pic {
        /// 0 or 1.
        chip: u32,
        /// 0 to 7.
        pin: u32,
    },
    /// A pin of the in-kernel IOAPIC, 0 to 23.
    Ioapic {
        /// 0 to 23.
        pin: u32,
    },
    /// A message to the local APICs.
    Msi(MsiMessage),
}

/// The VM's whole GSI routing table; the only caller of `KVM_SET_GSI_ROUTING`.
///
/// Changes are collected and take effect together at [`Routes::commit`], because each call replaces the kernel's
/// whole table and waits for an SRCU grace period (`kvm_set_irq_routing`). A commit without changes makes no call.
/// Any thread may use it: a lock is held across the ioctl, so that the last call always carries the newest table.
#[derive(Debug)]
pub struct Routes {
    vm: Arc<dyn VmIoctls>,
    limit: u32,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// The MSI routes. `None`: the GSI is allocated and has no route yet.
    msi: BTreeMap<Gsi, Option<MsiMessage>>,
    dirty: bool,
    commits: u64,
}

impl Routes {
    /// Returns the table that `KVM_CREATE_IRQCHIP` sets up: GSIs 0-15 lead to PIC and IOAPIC, 16-23 to the IOAPIC; no
    /// MSI. `limit` is the number of entries, `KVM_CAP_IRQ_ROUTING` (4096 on all current kernels).
    pub fn new(vm: Arc<dyn VmIoctls>, limit: u32) -> Routes {
        Routes { vm, limit, table: Mutex::new(Table { msi: BTreeMap::new(), dirty: false, commits: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.locked()
    }

    /// Allocates the lowest free GSI from [`FIRST_MSI_GSI`] up.
    ///
    /// # Errors
    /// [`KvmError::NoFreeGsi`] if the kernel's table is full.
    pub fn allocate(&self) -> Result<Gsi, KvmError> {
        let mut table = self.lock();
        // The 40 legacy entries (16 PIC, 24 IOAPIC) count towards the limit too.
        let legacy = legacy_entries().len() as u32;
        if table.msi.len() as u32 + legacy >= self.limit {
            return Err(KvmError::NoFreeGsi { limit: self.limit });
        }
        let mut gsi = FIRST_MSI_GSI;
        for &taken in table.msi.keys() {
            if taken != gsi {
                break;
            }
            gsi += 1;
        }
        table.msi.insert(gsi, None);
        Ok(gsi)
    }

    /// Routes `gsi` to `message`, from the next commit on. A route that stays the same is no change to commit.
    pub fn set(&self, gsi: Gsi, message: MsiMessage) {
        let mut table = self.lock();
        if table.msi.insert(gsi, Some(message)) != Some(Some(message)) {
            table.dirty = true;
            let (address, data) = (hex(message.address), hex(message.data));
            info!(target: "kvm", gsi, address, data, "route");
        }
    }

    /// Frees `gsi`. The next commit removes its route from the kernel. Deassign its irqfd first.
    pub fn release(&self, gsi: Gsi) {
        let mut table = self.lock();
        if let Some(Some(_)) = table.msi.remove(&gsi) {
            table.dirty = true;
            info!(target: "kvm", gsi, "route released");
        }
    }

    /// Passes the collected changes to the kernel with one ioctl, or with none if nothing changed.
    ///
    /// # Errors
    /// The kernel refused the table. The changes are kept, so the next commit tries them again.
    pub fn commit(&self) -> Result<(), KvmError> {
        let mut table = self.lock();
        if !table.dirty {
            return Ok(());
        }
        let mut entries: Vec<_> = legacy_entries().iter().map(|&(gsi, route)| encode(gsi, route)).collect();
        entries.extend(
            table.msi.iter().filter_map(|(&gsi, message)| message.map(|m| encode(gsi, Route::Msi(m)))),
        );
        self.vm.set_gsi_routing(&entries).map_err(|source| KvmError::Ioctl {
            ioctl: "KVM_SET_GSI_ROUTING",
            what: format!("{} entries", entries.len()),
            source,
        })?;
        table.dirty = false;
        table.commits += 1;
        Ok(())
    }

    /// Returns the table in GSI order, as the kernel holds it after the next commit. For display.
    pub fn entries(&self) -> Vec<(Gsi, Route)> {
        let table = self.lock();
        let mut all = legacy_entries();
        all.extend(table.msi.iter().filter_map(|(&gsi, m)| m.map(|m| (gsi, Route::Msi(m)))));
        all.sort_by_key(|&(gsi, _)| gsi);
        all
    }

    /// Returns how often `KVM_SET_GSI_ROUTING` was called.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }
}

/// The table of `kvm_setup_default_irq_routing` (arch/x86/kvm/irq.c): PIC and IOAPIC pins share GSIs 0-15.
fn legacy_entries() -> Vec<(Gsi, Route)> {
    let pic = (0..16).map(|gsi| (gsi, Route::Pic { chip: gsi / 8, pin: gsi % 8 }));
    let ioapic = (0..FIRST_MSI_GSI).map(|gsi| (gsi, Route::Ioapic { pin: gsi }));
    pic.chain(ioapic).collect()
}

fn encode(gsi: Gsi, route: Route) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, ..Default::default() };
    match route {
        Route::Pic { chip, pin } => {
            entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
            entry.u.irqchip.irqchip = if chip == 0 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
            entry.u.irqchip.pin = pin;
        }
        Route::Ioapic { pin } => {
            entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
            entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
            entry.u.irqchip.pin = pin;
        }
        Route::Msi(message) => {
            entry.type_ = KVM_IRQ_ROUTING_MSI;
            entry.u.msi.address_lo = message.address as u32;
            entry.u.msi.address_hi = (message.address >> 32) as u32;
            entry.u.msi.data = message.data;
        }
    }
    entry
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
