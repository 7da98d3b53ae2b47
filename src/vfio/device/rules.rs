//! The table that says who implements each byte of a passed-through device's config space.

use crate::pci::MSIX_CAPABILITY;

use crate::vfio::device::msi::{MSI_CAPABILITY, Msi};

/// Who implements a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Reads 0, writes are dropped.
    Hidden,
    /// Read from the device; writes are dropped.
    ReadOnly,
    /// Read from the device and written to it. VFIO in the kernel still filters what would harm the host.
    Passed,
    /// Kept here: the device's own register is not touched by the guest's writes.
    Emulated,
}

/// The header (PCI Local Bus 3.0, 6.1): first byte, length, who implements it, why. All other bytes are hidden.
pub const HEADER: &[(usize, usize, Rule, &str)] = &[
    (0x00, 4, Rule::ReadOnly, "vendor and device ID"),
    (0x04, 2, Rule::Emulated, "command: decoding is the VMM's, bus mastering is passed on"),
    (0x06, 2, Rule::Passed, "status: error bits are cleared by writing ones"),
    (0x08, 4, Rule::ReadOnly, "revision and class"),
    (0x0c, 2, Rule::Emulated, "cache line size, latency timer"),
    (0x0e, 1, Rule::Emulated, "header type: one function, whatever the host's slot holds"),
    (0x10, 24, Rule::Emulated, "BARs: guest addresses"),
    (0x2c, 4, Rule::ReadOnly, "subsystem"),
    (0x34, 1, Rule::Emulated, "capability list: skips the hidden ones"),
    (0x3c, 2, Rule::Emulated, "interrupt line and pin"),
    (0x3e, 2, Rule::ReadOnly, "minimum grant, maximum latency"),
];

/// A capability that a guest may see: its ID, its length, and who implements its bytes from offset 2 on (0 and 1, ID and
/// next pointer, are always emulated).
pub struct Shown {
    /// Capability ID.
    pub id: u8,
    /// Its length in bytes, computed from its first 8.
    pub len: fn(&[u8; 8]) -> usize,
    /// Who implements it.
    pub rule: Rule,
    /// Exceptions: first byte, length, who implements them.
    pub parts: &'static [(usize, usize, Rule)],
}

/// PCI Express (7.5.3): Device Control and Status are the guest's, by way of VFIO, which catches the function level reset; the
/// guest sees no link (see [`PCIE_TYPE`]).
const PCIE_PARTS: &[(usize, usize, Rule)] = &[
    (0x02, 2, Rule::Emulated),
    (0x08, 4, Rule::Passed),
    (0x0c, 0x18, Rule::Hidden),
    (0x2c, 0x10, Rule::Hidden),
];

/// The capabilities that are shown. All others are hidden: power budgets, VPD (a write may reach an EEPROM), slots, debug
/// ports, and whatever comes later.
pub const CAPABILITIES: &[Shown] = &[
    // Power management: states are kept here and not entered, so that no BAR goes away under a running guest.
    Shown { id: 0x01, len: |_| 8, rule: Rule::Emulated, parts: &[] },
    Shown {
        id: MSI_CAPABILITY,
        len: |c| Msi::len(u16::from_le_bytes([c[2], c[3]])),
        rule: Rule::Emulated,
        parts: &[],
    },
    Shown { id: 0x07, len: |_| 8, rule: Rule::ReadOnly, parts: &[] },
    Shown { id: VENDOR, len: |c| usize::from(c[2]).max(3), rule: Rule::Passed, parts: &[] },
    Shown { id: 0x0d, len: |_| 8, rule: Rule::ReadOnly, parts: &[] },
    Shown { id: PCIE, len: pcie_len, rule: Rule::ReadOnly, parts: PCIE_PARTS },
    Shown { id: MSIX_CAPABILITY, len: |_| 12, rule: Rule::Emulated, parts: &[] },
    Shown { id: 0x12, len: |_| 8, rule: Rule::ReadOnly, parts: &[] },
    Shown { id: ADVANCED_FEATURES, len: |_| 6, rule: Rule::Passed, parts: &[] },
];

/// Vendor specific: virtio's capabilities are among these, and drivers need them.
const VENDOR: u8 = 0x09;
/// Power management.
pub const POWER: u8 = 0x01;
/// PCI Express.
pub const PCIE: u8 = 0x10;
/// Advanced Features: the function level reset of conventional PCI.
pub const ADVANCED_FEATURES: u8 = 0x13;

/// Device/port type "root complex integrated endpoint", as an endpoint on the root bus must be. A plain endpoint would
/// need a port above it, and a link.
pub const PCIE_TYPE: u16 = 9;

fn pcie_len(capability: &[u8; 8]) -> usize {
    if capability[2] & 0xf >= 2 { 0x3c } else { 0x14 }
}

/// Extended capabilities that are shown, read-only: (ID, length from the first 8 bytes). All others are hidden: SR-IOV, ATS,
/// PRI, PASID, resizable BARs, power and error reporting belong to the host.
pub type ShownExtended = (u16, fn(&[u8; 8]) -> usize);

/// See [`ShownExtended`].
pub const EXTENDED: &[ShownExtended] = &[
    // Device serial number; vendor specific.
    (0x0003, |_| 12),
    (0x000b, |c| usize::from(u16::from_le_bytes([c[6], c[7]]) >> 4).max(8)),
];
