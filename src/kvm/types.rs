//! The arguments of the ioctls as plain data.

/// The address of the guest stores that signal an ioeventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoAddress {
    /// A guest-physical address.
    Mmio(u64),
    /// An I/O port.
    Pio(u16),
}

/// Which stores to the address match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Any length and any value (length 0). For MMIO, KVM looks for these on `KVM_FAST_MMIO_BUS` first, before it
    /// decodes the instruction.
    Any,
    /// Exactly this many bytes (1, 2, 4 or 8), any value.
    Length(u8),
    /// Exactly this many bytes and this value (datamatch).
    Value(u8, u64),
}

/// The parameters of one ioeventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoeventfdSpec {
    /// The bus and the address.
    pub address: IoAddress,
    /// The length and the value of the store.
    pub matching: Match,
}

/// A range of guest-physical addresses and the memory of this process behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First guest-physical address, page aligned.
    pub guest: u64,
    /// Length in bytes, whole pages; 0 removes a slot.
    pub len: u64,
    /// Address in this process, page aligned.
    pub host: u64,
}

/// A message signalled interrupt: the address and the data of a device's store (PCI Local Bus 3.0, 6.8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// 64-bit message address; on x86 0xFEExxxxx, with the destination APIC ID in bits 19:12.
    pub address: u64,
    /// Message data; on x86 the vector in bits 7:0.
    pub data: u32,
}
