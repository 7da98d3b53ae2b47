//! The arguments of the ioctls as plain data.

/// Where a guest store is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoAddress {
    /// A guest-physical address.
    Mmio(u64),
    /// An I/O port.
    Pio(u16),
}

/// Which stores to the address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Any length and value (length 0): KVM need not decode the instruction, and tries the MMIO ones on
    /// `KVM_FAST_MMIO_BUS` first.
    Any,
    /// Exactly this many bytes (1, 2, 4 or 8), any value.
    Length(u8),
    /// Exactly this many bytes and this value (datamatch).
    Value(u8, u64),
}

/// One ioeventfd as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoeventfdSpec {
    /// Bus and address.
    pub address: IoAddress,
    /// Length and value.
    pub matching: Match,
}

/// A range of guest-physical addresses and the memory of this process behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First guest-physical address, page aligned.
    pub guest: u64,
    /// Bytes, whole pages; 0 removes a slot.
    pub len: u64,
    /// Address in this process, page aligned.
    pub host: u64,
}

/// What a device writes to interrupt a CPU: PCI Local Bus 3.0, 6.8.1 (address and data of a message).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// 64-bit message address; on x86 0xFEExxxxx, with the destination APIC ID in bits 19:12.
    pub address: u64,
    /// Message data; on x86 the vector in bits 7:0.
    pub data: u32,
}
