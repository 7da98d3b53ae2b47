/// The address space of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory.
    Mmio,
    /// I/O ports.
    Pio,
}

/// The address range that a BAR decodes now.
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

/// A PCI function as the host bridge sees it. Any vCPU thread may call any method at any time. No method may panic on
/// anything that a guest can write.
pub trait PciDevice: Send + Sync {
    /// Reads `data.len()` (1, 2 or 4) bytes of config space at `offset` (below 4096, naturally aligned).
    fn config_read(&self, offset: u16, data: &mut [u8]);

    /// Writes config space. Afterwards the caller reads [`PciDevice::windows`] to find the windows that changed.
    fn config_write(&self, offset: u16, data: &[u8]);

    /// Returns the windows that the function decodes now: those of BARs that have an address, while memory or I/O
    /// decoding is on in the command register.
    fn windows(&self) -> Vec<Window>;

    /// Called when the bridge begins to route `window` to this device. The device registers doorbells at its addresses.
    fn bar_mapped(&self, window: Window);

    /// Called when the bridge has stopped routing `window`. The device removes its doorbells there before it returns.
    fn bar_unmapped(&self, window: Window);

    /// Performs a guest load from BAR `bar` at `offset` within it (1 to 8 bytes, any alignment).
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Performs a guest store to BAR `bar` at `offset` within it (1 to 8 bytes, any alignment).
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
}
