//! The device as the PCI bus sees it: which register an access reaches.

use std::ops::Range;

use tracing::info;

use crate::pci::{Command, Msix, PciDevice, Window, load};

use super::block::written_writeback;
use super::device::{State, VirtioBlk};
use super::layout::{
    COMMON, DEVICE, ISR, MEMORY_BAR, NOTIFY_STRIDE, PAGE, PBA, TABLE, WINDOW_BAR, WINDOW_DATA, WINDOW_LENGTH,
    WINDOW_OFFSET,
};

impl PciDevice for VirtioBlk {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let mut state = self.state();
        state.pci.set_interrupt_status(self.interrupts.isr_pending());
        if let Some(target) = target(&state, offset, data.len()) {
            drop(state);
            let mut value = [0; 4];
            self.bar_read(target.bar, target.offset, &mut value[..target.len]);
            let mut state = self.state();
            let at = state.window_at + WINDOW_DATA;
            state.pci.set(at, &value);
            return state.pci.read(offset, data);
        }
        state.pci.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = self.state();
        state.pci.write(offset, data);
        let intx_disabled = state.pci.command().contains(Command::INTX_DISABLE);
        let control = state.msix_at.map_or(0, |at| state.pci.u16(at + 2));
        let State { msix, .. } = &mut *state;
        if msix.enabled() != Msix::enables(control) {
            let device = &*self.config.name;
            info!(target: "virtio", device, enabled = Msix::enables(control), "MSI-X");
        }
        // Messages are enabled before the vectors and disabled after them: an interrupt in between is pending, not lost.
        if Msix::enables(control) {
            self.interrupts.configure(true, intx_disabled);
        }
        self.apply_vectors(&msix.set_control(control));
        self.interrupts.configure(msix.enabled(), intx_disabled);
        self.interrupts_changed(&state);
        if let Some(target) = target(&state, offset, data.len()) {
            let at = state.window_at + WINDOW_DATA;
            let value = state.pci.u32(at).to_le_bytes();
            drop(state);
            self.store(target.bar, target.offset, &value[..target.len], false);
        }
    }

    fn windows(&self) -> Vec<Window> {
        let state = self.state();
        state.bars.windows(&state.pci)
    }

    fn bar_mapped(&self, window: Window) {
        let mut state = self.state();
        let armed = state.doorbells.mapped(window);
        self.note(&mut state, armed.err());
    }

    fn bar_unmapped(&self, window: Window) {
        let mut state = self.state();
        let armed = state.doorbells.unmapped(window);
        self.note(&mut state, armed.err());
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != MEMORY_BAR {
            return;
        }
        let within = offset % PAGE;
        match offset - within {
            COMMON => {
                let image = {
                    let state = self.state();
                    state.common.image(self.device_status.status(), self.device_status.generation())
                };
                load(&image, within, data);
            }
            // A read clears the ISR, but only a read of the byte itself.
            ISR if within == 0 => load(&[self.interrupts.take_isr()], 0, data),
            DEVICE => load(&self.device_config(), within, data),
            TABLE => self.state().msix.table_read(within, data),
            PBA => {
                let vectors = self.interrupts.vectors();
                let pending = |n: usize| vectors.get(n).is_some_and(|vector| vector.pending());
                self.state().msix.pba_read(within, data, pending);
            }
            _ => {}
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.store(bar, offset, data, true);
    }
}

impl VirtioBlk {
    /// A store to a BAR; `direct` unless it came through the PCI_CFG window.
    fn store(&self, bar: u8, offset: u64, data: &[u8], direct: bool) {
        // First, and without a lock: this is the hot path of notify=exit.
        if let Some(queue) = self.notify_register(bar, offset) {
            return self.kicks[queue].by_exit(data, direct);
        }
        if bar != MEMORY_BAR {
            return;
        }
        let within = offset % PAGE;
        match offset - within {
            COMMON => self.common_write(within, data),
            DEVICE => {
                let state = self.state();
                if let Some(on) = written_writeback(state.common.features(), within, data) {
                    self.set_writeback(on);
                }
            }
            TABLE => {
                let mut state = self.state();
                self.apply_vectors(&state.msix.table_write(within, data));
            }
            _ => {}
        }
    }

    /// The queue whose notify register is exactly at `offset`.
    fn notify_register(&self, bar: u8, offset: u64) -> Option<usize> {
        let (notify_bar, start) = self.notify.place();
        let within = offset.checked_sub(start)?;
        let queue = usize::try_from(within / NOTIFY_STRIDE).ok()?;
        let exact = bar == notify_bar && within.is_multiple_of(NOTIFY_STRIDE);
        (exact && queue < self.kicks.len()).then_some(queue)
    }
}

/// Where the PCI_CFG window points.
struct Target {
    bar: u8,
    offset: u64,
    len: usize,
}

/// The BAR access that a config access at `offset` makes through the PCI_CFG window. `None` if it does not touch the
/// window's data, or if its length or alignment violates virtio 1.2, 4.1.4.9.1.
fn target(state: &State, offset: u16, len: usize) -> Option<Target> {
    let start = state.window_at + WINDOW_DATA;
    let data: Range<usize> = start..start + 4;
    let touched = usize::from(offset) < data.end && usize::from(offset) + len > data.start;
    if !touched {
        return None;
    }
    let bar = state.pci.u32(state.window_at + WINDOW_BAR) as u8;
    let offset = state.pci.u32(state.window_at + WINDOW_OFFSET);
    let len = state.pci.u32(state.window_at + WINDOW_LENGTH);
    let allowed = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
    allowed.then_some(Target { bar, offset: offset.into(), len: len as usize })
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
