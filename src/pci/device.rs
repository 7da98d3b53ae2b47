/// Which address space a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory.
    Mmio,
    /// I/O ports.
    Pio,
}

/// A BAR that the device decodes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// BAR number, 0 to 5 (the lower one of a 64-bit pair).
    pub bar: u8,
    /// Memory or I/O.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Length in bytes, a power of two.
    pub len: u64,
}

/// A PCI function as the host bridge sees it. Any vCPU thread may call any method at any time; no method may panic
/// on anything that a guest can write.
pub trait PciDevice: Send + Sync {
    /// Reads `data.len()` (1, 2 or 4) bytes of config space at `offset` (below 4096, naturally aligned).
    fn config_read(&self, offset: u16, data: &mut [u8]);

    /// Writes config space. The caller finds changed windows through [`PciDevice::windows`].
    fn config_write(&self, offset: u16, data: &[u8]);

    /// The windows decoded now: memory or I/O decode is on in the command register and the BAR has an address.
    fn windows(&self) -> Vec<Window>;

    /// The bridge routes `window` to this device from now on: register doorbells at its addresses.
    fn bar_mapped(&self, window: Window);

    /// The bridge stopped routing `window`: doorbells registered there must be gone when this returns.
    fn bar_unmapped(&self, window: Window);

    /// A guest load from BAR `bar` at `offset` within it (1 to 8 bytes, any alignment).
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// A guest store to BAR `bar`.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
}
