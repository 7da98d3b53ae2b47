use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::Locked;
use crate::host::log;
use crate::host::thread::OnDeath;
use crate::kvm::{Gsi, MemorySlots, Routes, VectorState, VmIoctls};
use crate::pci::{Bars, Msix, PciDevice, VectorChanges, Window};
use crate::vfio::device::armed::Wanted;
use crate::vfio::device::bars::{self, MappedBars, Trapped};
use crate::vfio::device::config::PassthroughConfig;
use crate::vfio::device::eventfd_poller::{EventfdPoller, PolledEventfd};
use crate::vfio::device::msi::Msi;
use crate::vfio::device::vector_report::VectorReport;
use crate::vfio::device::vector_table::VectorTable;
use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex};
use crate::vfio::kernel::region::Area;
use crate::vfio::{Bdf, Dma, IrqPath, VfioError};

/// The parts of a VM that a passed-through device uses.
#[derive(Clone, Debug)]
pub struct VmResources {
    /// The VM.
    pub vm: Arc<dyn VmIoctls>,
    /// Its GSI routes.
    pub routes: Arc<Routes>,
    /// Its memory slots.
    pub slots: Arc<MemorySlots>,
    /// GSI of the INTx pin of the device's future slot.
    pub intx: Gsi,
}

/// A device of the host on the guest's PCI bus.
///
/// # Locks
/// `state` first, then those of `VectorTable` and of `kvm`. Loads and stores to BARs take none of them unless they hit the
/// MSI-X table or the pending bits; most of them do not even exit, because the pages are mapped into the guest.
pub struct VfioPci {
    bdf: Bdf,
    path: IrqPath,
    // In the order of dropping: disarm interrupts, remove BARs from the guest, close the device, then its address space.
    state: Mutex<State>,
    /// What the host tells of the device, beside its interrupts.
    watched: Mutex<Vec<PolledEventfd>>,
    interrupts: VectorTable,
    bars: MappedBars,
    trapped: Option<Trapped>,
    fd: Arc<dyn DeviceFd>,
    _dma: Option<Arc<Dma>>,
}

struct State {
    config: PassthroughConfig,
    bars: Bars,
    msix: Option<Msix>,
    msi: Option<Msi>,
    /// The MSI vectors at the last reconcile.
    msi_states: Vec<VectorState>,
}

impl VfioPci {
    /// Makes a guest device of the open device `fd`: resets it, maps its BARs, and builds its config space.
    ///
    /// # Errors
    /// A BAR cannot be mapped, or file descriptors ran out.
    pub fn new(
        bdf: Bdf,
        fd: Arc<dyn DeviceFd>,
        path: IrqPath,
        resources: VmResources,
        dma: Option<Arc<Dma>>,
        on_death: OnDeath,
    ) -> Result<Arc<VfioPci>, VfioError> {
        let mut poller = EventfdPoller::new().map_err(|e| no_poller(bdf, e))?;
        let name = bdf.to_string();
        let thread = format!("vfio {}", &name[name.len() - 7..]);
        poller.start(&thread, on_death).map_err(|e| no_poller(bdf, e))?;
        VfioPci::with_poller(bdf, fd, path, resources, dma, poller)
    }

    pub(super) fn with_poller(
        bdf: Bdf,
        fd: Arc<dyn DeviceFd>,
        path: IrqPath,
        resources: VmResources,
        dma: Option<Arc<Dma>>,
        poller: EventfdPoller,
    ) -> Result<Arc<VfioPci>, VfioError> {
        if !fd.can_reset() {
            log::warn(
                bdf,
                format_args!(
                    "cannot be reset: the guest gets it as it is, and its next user gets it as the guest leaves it"
                ),
            );
        } else if let Err(error) = fd.reset() {
            log::warn(bdf, format_args!("cannot be reset ({error}); the guest gets it as it is"));
        }
        let mut config = PassthroughConfig::new(&*fd, fd.irq_info(IrqIndex::Intx).count > 0);
        let laid = bars::lay_out(&*fd, &mut config.own);
        let msix = config.places.msix.filter(|_| fd.irq_info(IrqIndex::Msix).count > 0);
        let trapped = msix.map(|(_, vectors, table, pba)| Trapped { table, pba, vectors });
        let mapped = MappedBars::new(&*fd, trapped, resources.slots).map_err(|(bar, error)| VfioError::Device {
            bdf,
            what: format!("has a BAR {bar} that cannot be mapped ({error}): another program may have it mapped; see dmesg"),
        })?;
        let msi_count = fd.irq_info(IrqIndex::Msi).count;
        let msi =
            config.places.msi.filter(|_| msi_count > 0).map(|(at, control)| Msi::new(at, control, msi_count));
        config.push_command(&*fd);
        let kvm = (resources.vm, resources.routes);
        let interrupts = VectorTable::new(bdf, fd.clone(), kvm, path, resources.intx, poller);
        let msix = msix.map(|(_, vectors, ..)| Msix::new(vectors));
        let state = State { config, bars: laid, msix, msi, msi_states: Vec::new() };
        let this = VfioPci {
            bdf,
            path,
            state: Mutex::new(state),
            interrupts,
            watched: Mutex::default(),
            bars: mapped,
            trapped,
            fd,
            _dma: dma,
        };
        this.reconcile(&mut this.lock(), Vec::new());
        Ok(Arc::new(this))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// Its address on the host.
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// How its interrupts reach the guest.
    pub fn path(&self) -> IrqPath {
        self.path
    }

    /// Calls `action` when the host requests the device's release (its driver is being unbound). The kernel waits until the
    /// device is closed.
    pub fn on_request(&self, action: impl Fn() + Send + Sync + 'static) {
        self.watch(IrqIndex::Request, action);
    }

    /// Calls `action` when the device has reported an error that it cannot go on from (PCI Express AER): its loads may return ones.
    pub fn on_error(&self, action: impl Fn() + Send + Sync + 'static) {
        self.watch(IrqIndex::Error, action);
    }

    fn watch(&self, index: IrqIndex, action: impl Fn() + Send + Sync + 'static) {
        if self.fd.irq_info(index).count == 0 {
            return;
        }
        let Ok(event) = EventFd::new(EFD_NONBLOCK).map(Arc::new) else { return };
        if let Ok(watch) = self.interrupts.poller().watch(event.clone(), action)
            && matches!(self.fd.set_eventfds(index, 0, &[event.as_raw_fd()]), Ok(None))
        {
            self.watched.locked().push(watch);
        }
    }

    /// What the guest accesses without the VMM at present: BAR, guest-physical address, length.
    pub fn direct(&self) -> Vec<(u8, u64, u64)> {
        self.bars.shown().into_iter().map(|(bar, range)| (bar, range.guest, range.len)).collect()
    }

    /// How each vector is or was armed, with its counts.
    pub fn report(&self) -> Vec<VectorReport> {
        self.interrupts.report()
    }

    /// The kind of interrupt that the guest has enabled in config space.
    fn wanted(&self, state: &State) -> Wanted {
        if let Some(msix) = state.msix.as_ref().filter(|msix| msix.enabled()) {
            return Wanted::Msix(msix.vectors());
        }
        if let Some(states) = state.msi.and_then(|msi| msi.states(&state.config.own)) {
            return Wanted::Msi(states.len());
        }
        let has_line = self.fd.irq_info(IrqIndex::Intx).count > 0;
        if has_line && !state.config.intx_disabled() { Wanted::Intx } else { Wanted::Nothing }
    }

    /// Makes what is armed match what the guest configured; `changes` are those of the MSI-X table.
    fn reconcile(&self, state: &mut State, changes: Vec<(usize, VectorState)>) {
        let wanted = self.wanted(state);
        let changes = match wanted {
            Wanted::Msi(_) => VfioPci::msi_changes(state),
            Wanted::Msix(_) | Wanted::Intx | Wanted::Nothing => {
                state.msi_states.clear();
                changes
            }
        };
        self.interrupts.reconcile(wanted, &changes);
    }

    /// The MSI vectors that changed since the last reconcile; all of them if MSI has just been enabled.
    fn msi_changes(state: &mut State) -> Vec<(usize, VectorState)> {
        let now = state.msi.and_then(|msi| msi.states(&state.config.own)).unwrap_or_default();
        let before = std::mem::replace(&mut state.msi_states, now);
        let same_count = before.len() == state.msi_states.len();
        let now = state.msi_states.iter().copied().enumerate();
        now.filter(|&(n, new)| !same_count || before.get(n) != Some(&new)).collect()
    }

    /// Runs `work` on the MSI-X state machine and applies the changes that it returns.
    fn with_msix(&self, work: impl FnOnce(&mut Msix) -> VectorChanges) {
        let mut state = self.lock();
        let changes = state.msix.as_mut().map(work).unwrap_or_default();
        if !changes.is_empty() {
            self.reconcile(&mut state, changes);
        }
    }

    /// The guest resets the function: all emulated state is reset, and nothing is armed while the device is being reset.
    fn function_reset(&self, state: &mut State, offset: u16, data: &[u8]) {
        if let Some(msix) = &mut state.msix {
            // All interrupts are disabled below, so these changes need not be applied.
            let _ = msix.reset();
        }
        state.config.reset();
        state.msi_states.clear();
        self.interrupts.reconcile(Wanted::Nothing, &[]);
        state.config.push_command(&*self.fd);
        // VFIO sees the bit and resets the function; it saves the config space before and restores it after.
        state.config.write(&*self.fd, offset, data);
        self.reconcile(state, Vec::new());
    }

    fn places(&self, bar: u8) -> (Option<Area>, Option<Area>) {
        let trapped = self.trapped.as_ref();
        (trapped.and_then(|t| t.table_in(bar)), trapped.and_then(|t| t.pba_in(bar)))
    }
}

fn no_poller(bdf: Bdf, error: std::io::Error) -> VfioError {
    VfioError::Device {
        bdf,
        what: format!("cannot be watched: {error}; raise the limit on open files (ulimit -n)"),
    }
}

/// `offset` relative to `area`, if it is inside.
fn within(area: Option<Area>, offset: u64) -> Option<u64> {
    area.filter(|area| (area.offset..area.end()).contains(&offset)).map(|area| offset - area.offset)
}

impl PciDevice for VfioPci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let state = self.lock();
        state.config.read(&*self.fd, offset, data);
        // MSI's pending bits: one dword, of which a guest may read a part.
        if let Some(at) = state.msi.and_then(|msi| msi.pending_at()) {
            for (n, byte) in (usize::from(offset)..).zip(data) {
                if (at..at + 4).contains(&n) {
                    let first = 8 * (n - at);
                    *byte = (0..8)
                        .fold(0, |bits, bit| bits | u8::from(self.interrupts.pending(first + bit)) << bit);
                }
            }
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = self.lock();
        if state.config.starts_reset(offset, data) {
            self.function_reset(&mut state, offset, data);
            return;
        }
        let before = state.config.own.command();
        state.config.write(&*self.fd, offset, data);
        if state.config.own.command() != before {
            state.config.push_command(&*self.fd);
        }
        let place = state.config.places.msix;
        let changes = match (place, &mut *state) {
            (Some((at, ..)), State { msix: Some(msix), config, .. }) => {
                msix.set_control(config.own.u16(at + 2))
            }
            _ => VectorChanges::new(),
        };
        self.reconcile(&mut state, changes);
    }

    fn windows(&self) -> Vec<Window> {
        let state = self.lock();
        state.bars.windows(&state.config.own)
    }

    fn bar_mapped(&self, window: Window) {
        if let Err(error) = self.bars.map_into_guest(window) {
            log::warn(self.bdf, format_args!("BAR {} is slow: {error}", window.bar));
        }
    }

    fn bar_unmapped(&self, window: Window) {
        self.bars.unmap(window.bar);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        let (table, pba) = self.places(bar);
        if let Some(at) = within(table, offset) {
            if let Some(msix) = &self.lock().msix {
                msix.table_read(at, data);
            }
            return;
        }
        if let Some(at) = within(pba, offset) {
            if let Some(msix) = &self.lock().msix {
                msix.pba_read(at, data, |n| self.interrupts.pending(n));
            }
            return;
        }
        if self.fd.read(bar.into(), offset, data).is_err() {
            data.fill(0xff);
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        let (table, pba) = self.places(bar);
        if let Some(at) = within(table, offset) {
            return self.with_msix(|msix| msix.table_write(at, data));
        }
        if within(pba, offset).is_none() {
            // A device that refuses a store behaves like one that ignores it.
            let _ = self.fd.write(bar.into(), offset, data);
        }
    }
}

impl Drop for VfioPci {
    fn drop(&mut self) {
        self.interrupts.reconcile(Wanted::Nothing, &[]);
        if self.fd.can_reset() {
            // The kernel also resets when the last descriptor closes. Earlier is better: no DMA is in flight when RAM is unmapped.
            let _ = self.fd.reset();
        }
    }
}

#[cfg(test)]
#[path = "passthrough_tests.rs"]
mod tests;
