use crate::kvm::{MsiMessage, VectorState};

use super::{Capability, load};

/// Capability ID of MSI-X.
pub const MSIX_CAPABILITY: u8 = 0x11;
/// The most vectors that a function can have (PCI Local Bus 3.0, 6.8.2.3).
pub const MAX_VECTORS: u16 = 2048;

const ENTRY_LEN: usize = 16;
const CONTROL_MASKED: u8 = 1;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// The vectors whose effective state changed: number and new state, each vector once, in ascending order. One value is
/// one batch, for one commit of routes. A vector that stays masked is not in it, whatever was written to its entry, and
/// neither is one that stays unmasked with the same message.
pub type VectorChanges = Vec<(usize, VectorState)>;

/// The location of a structure: a BAR and an offset in it, a multiple of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarOffset {
    /// BAR number, 0 to 5.
    pub bar: u8,
    /// Offset in bytes from the start of the BAR.
    pub offset: u32,
}

/// The state machine of the MSI-X capability (PCI Local Bus 3.0, 6.8.2): the table as the guest sees it, the enable
/// and function mask bits, and the effective state of each vector.
///
/// A vector is unmasked when MSI-X is enabled, the function is not masked, and neither is its entry. After every write
/// the table is compared with the effective state, and the difference is returned as one [`VectorChanges`]. So enabling
/// MSI-X with a full table is one batch, and rewriting masked entries, as Linux 5.18 and later do at boot, is none. The
/// type is not synchronized: the owner holds a lock and applies the changes under it.
///
/// ```
/// let mut msix = doorbell::pci::Msix::new(2);
/// // The driver writes entry 0 and unmasks it while MSI-X is off: nothing changes yet.
/// assert!(msix.table_write(0, &0xfee0_0000_u64.to_le_bytes()).is_empty());
/// assert!(msix.table_write(8, &0x41_u64.to_le_bytes()).is_empty());
/// // It enables MSI-X: one batch, with the one vector that is unmasked now.
/// let changes = msix.set_control(1 << 15);
/// assert_eq!(changes.len(), 1);
/// assert_eq!((changes[0].0, changes[0].1.message.data), (0, 0x41));
/// ```
#[derive(Debug)]
pub struct Msix {
    table: Vec<u8>,
    enabled: bool,
    function_masked: bool,
    /// The message of each vector that is unmasked now.
    in_force: Vec<Option<MsiMessage>>,
}

impl Msix {
    /// Returns a table of `vectors` masked entries (clamped to 1 to [`MAX_VECTORS`]), with MSI-X off.
    pub fn new(vectors: u16) -> Msix {
        let vectors = usize::from(vectors.clamp(1, MAX_VECTORS));
        let mut msix = Msix {
            table: vec![0; vectors * ENTRY_LEN],
            enabled: false,
            function_masked: false,
            in_force: vec![None; vectors],
        };
        msix.clear_table();
        msix
    }

    fn clear_table(&mut self) {
        self.table.fill(0);
        for entry in self.table.chunks_exact_mut(ENTRY_LEN) {
            entry[12] = CONTROL_MASKED;
        }
    }

    /// Returns the number of vectors.
    pub fn vectors(&self) -> usize {
        self.in_force.len()
    }

    /// Returns the length in bytes of a table of `vectors` entries.
    pub const fn table_len(vectors: u16) -> u64 {
        vectors as u64 * ENTRY_LEN as u64
    }

    /// Returns the length in bytes of a pending bit array of `vectors` bits: whole 64-bit words.
    pub const fn pba_len(vectors: u16) -> u64 {
        (vectors as u64).div_ceil(64) * 8
    }

    /// Returns the capability. Its message control register is at offset 2. When the guest writes it, pass the value to
    /// [`Msix::set_control`].
    pub fn capability(&self, table: BarOffset, pba: BarOffset) -> Capability {
        let control = (self.vectors() - 1) as u16;
        let place = |at: BarOffset| (at.offset & !7) | u32::from(at.bar & 7);
        let mut body = control.to_le_bytes().to_vec();
        body.extend(place(table).to_le_bytes());
        body.extend(place(pba).to_le_bytes());
        Capability { id: MSIX_CAPABILITY, body, writable: (ENABLE | FUNCTION_MASK).to_le_bytes().to_vec() }
    }

    /// Returns whether MSI-X is on. While it is, INTx and MSI are off.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Returns whether `control`, a value of the message control register, turns MSI-X on.
    pub const fn enables(control: u16) -> bool {
        control & ENABLE != 0
    }

    /// Returns whether the function mask bit is set.
    pub fn function_masked(&self) -> bool {
        self.function_masked
    }

    /// Applies a value that the guest wrote to the message control register.
    #[must_use]
    pub fn set_control(&mut self, control: u16) -> VectorChanges {
        self.enabled = Msix::enables(control);
        self.function_masked = control & FUNCTION_MASK != 0;
        self.reconcile(0, self.vectors())
    }

    /// Performs a guest load from the table. Bytes beyond its end are 0.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        load(&self.table, offset, data);
    }

    /// Performs a guest store to the table, of any width and alignment. Bytes beyond its end are dropped. A write to an
    /// unmasked entry takes effect at once; the specification calls the result of such a write undefined.
    #[must_use]
    pub fn table_write(&mut self, offset: u64, data: &[u8]) -> VectorChanges {
        let Ok(start) = usize::try_from(offset) else { return Vec::new() };
        let end = start.saturating_add(data.len()).min(self.table.len());
        for (at, new) in (start..end).zip(data) {
            // Of the vector control word, only the mask bit is writable.
            let writable = match at % ENTRY_LEN {
                0..=11 => 0xff,
                12 => CONTROL_MASKED,
                _ => 0,
            };
            self.table[at] = new & writable;
        }
        self.reconcile(start / ENTRY_LEN, end.div_ceil(ENTRY_LEN))
    }

    /// Performs a guest load from the pending bit array. `pending` reads the bit of a vector without consuming it. Bits
    /// without a vector are 0. The owner drops stores to the array.
    pub fn pba_read(&self, offset: u64, data: &mut [u8], pending: impl Fn(usize) -> bool) {
        for (n, byte) in (0u64..).zip(data) {
            // The first vector of this byte; `None` if the offset overflows.
            let first = offset.checked_add(n).and_then(|at| usize::try_from(at.checked_mul(8)?).ok());
            let vectors = first.map_or(0..0, |first| first..first.saturating_add(8).min(self.vectors()));
            *byte = vectors.enumerate().fold(0, |byte, (bit, n)| byte | u8::from(pending(n)) << bit);
        }
    }

    /// Returns entry `n` of the table, ignoring the enable and function mask bits; `None` if there is no such entry.
    pub fn entry(&self, n: usize) -> Option<VectorState> {
        let entry = self.table.get(n.checked_mul(ENTRY_LEN)?..)?.first_chunk::<ENTRY_LEN>()?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = *entry;
        let message = MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        };
        Some(VectorState { message, masked: control & CONTROL_MASKED != 0 })
    }

    /// Returns the message of vector `n` if it is unmasked now.
    pub fn in_force(&self, n: usize) -> Option<MsiMessage> {
        self.in_force.get(n).copied().flatten()
    }

    /// Resets the function: MSI-X off, all entries masked. (A reset of a virtio device leaves PCI state unchanged.)
    #[must_use]
    pub fn reset(&mut self) -> VectorChanges {
        self.clear_table();
        self.set_control(0)
    }

    /// Makes the effective state of the entries `from..to` match the guest's settings. Returns the changes.
    fn reconcile(&mut self, from: usize, to: usize) -> VectorChanges {
        let on = self.enabled && !self.function_masked;
        let mut changes = Vec::new();
        for n in from..to.min(self.vectors()) {
            let Some(entry) = self.entry(n) else { continue };
            let state = VectorState { masked: entry.masked || !on, ..entry };
            let wanted = (!state.masked).then_some(state.message);
            if self.in_force[n] != wanted {
                self.in_force[n] = wanted;
                changes.push((n, state));
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "msix_tests.rs"]
mod tests;
