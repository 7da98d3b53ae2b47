use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, kvm_irq_routing_entry,
};

use super::{KvmError, MsiMessage, VmIoctls};
use crate::host::Locked;

/// A global system interrupt: KVM's handle for a routing entry.
pub type Gsi = u32;

/// First GSI that is not an IOAPIC pin.
pub const FIRST_MSI_GSI: Gsi = 24;

/// What one GSI stands for.
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
    /// A message.
    Msi(MsiMessage),
}

/// The VM's whole GSI routing table; the only caller of `KVM_SET_GSI_ROUTING`.
///
/// Changes are collected and take effect together at [`Routes::commit`], because each call replaces the kernel's
/// table and costs an SRCU grace period; a commit without a change makes no call. Any thread may use it: one lock
/// is held across the ioctl so that the kernel's table is always the newest one.
#[derive(Debug)]
pub struct Routes {
    vm: Arc<dyn VmIoctls>,
    limit: u32,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// MSI routes; `None`: taken, no route yet.
    msi: BTreeMap<Gsi, Option<MsiMessage>>,
    dirty: bool,
    commits: u64,
}

impl Routes {
    /// The table as `KVM_CREATE_IRQCHIP` leaves it: GSI 0-15 to PIC and IOAPIC, 16-23 to IOAPIC, no MSI.
    /// `limit` is `KVM_CAP_IRQ_ROUTING` (4096 on all current kernels).
    pub fn new(vm: Arc<dyn VmIoctls>, limit: u32) -> Routes {
        Routes { vm, limit, table: Mutex::new(Table { msi: BTreeMap::new(), dirty: false, commits: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.locked()
    }

    /// Takes the lowest free GSI from [`FIRST_MSI_GSI`] up.
    ///
    /// # Errors
    /// [`KvmError::NoFreeGsi`] if the kernel's table is full.
    pub fn allocate(&self) -> Result<Gsi, KvmError> {
        let mut table = self.lock();
        // The 40 legacy entries (16 PIC + 24 IOAPIC) count against the limit too.
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

    /// Points `gsi` at `message` from the next commit on; nothing to commit if it points there already.
    pub fn set(&self, gsi: Gsi, message: MsiMessage) {
        let mut table = self.lock();
        if table.msi.insert(gsi, Some(message)) != Some(Some(message)) {
            table.dirty = true;
        }
    }

    /// Gives `gsi` back. Its route leaves the kernel with the next commit; the irqfd must be off by now.
    pub fn release(&self, gsi: Gsi) {
        let mut table = self.lock();
        if let Some(Some(_)) = table.msi.remove(&gsi) {
            table.dirty = true;
        }
    }

    /// Makes the collected changes the kernel's, with one ioctl, or none if nothing changed.
    ///
    /// # Errors
    /// The kernel refused the table; the changes stay collected and the next commit tries again.
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

    /// The table as a reader wants it, in GSI order: what the kernel holds after the last commit.
    pub fn entries(&self) -> Vec<(Gsi, Route)> {
        let table = self.lock();
        let mut all = legacy_entries();
        all.extend(table.msi.iter().filter_map(|(&gsi, m)| m.map(|m| (gsi, Route::Msi(m)))));
        all.sort_by_key(|&(gsi, _)| gsi);
        all
    }

    /// How often `KVM_SET_GSI_ROUTING` was called.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }
}

/// As `kvm_setup_default_irq_routing` (arch/x86/kvm/irq.c): the PIC's pins and the IOAPIC's share GSI 0-15.
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
