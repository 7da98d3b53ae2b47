//! The address map: every guest-physical address and I/O port that the machine gives out, in one place.
//!
//! ```text
//! 0                RAM (boot structures below 1 MiB, kernel from 1 MiB up)
//! 0xC000_0000      32-bit window for memory BARs, 512 MiB
//! 0xE000_0000      ECAM: config space of bus 0
//! 0xFEB0_0000      step marks of a bench
//! 0xFEC0_0000      IOAPIC          0xFEE0_0000  local APICs
//! 0x1_0000_0000    the rest of RAM
//! 0x8_0000_0000    64-bit window for memory BARs, 32 GiB (within 36 physical address bits, the least x86-64 has)
//! ```

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Smallest and largest guest RAM.
pub const RAM_MIN: u64 = 128 * MIB;
/// Largest guest RAM.
pub const RAM_MAX: u64 = 8 * GIB;
/// Most vCPUs: APIC IDs stay in xAPIC's 8 bits, one ID per vCPU.
pub const VCPUS_MAX: u8 = 16;

/// Where low RAM ends at most: the hole for devices is from here to 4 GiB.
pub const LOW_RAM_END: u64 = 0xC000_0000;
/// Where RAM goes on.
pub const HIGH_RAM_START: u64 = 4 * GIB;

/// 32-bit window for memory BARs.
pub const MMIO32_START: u64 = 0xC000_0000;
/// Its end (exclusive).
pub const MMIO32_END: u64 = 0xE000_0000;
/// 64-bit window for memory BARs.
pub const MMIO64_START: u64 = 0x8_0000_0000;
/// Its end (exclusive).
pub const MMIO64_END: u64 = 0x10_0000_0000;
/// Window for I/O BARs.
pub const PIO_START: u64 = 0xC000;
/// Its end (exclusive).
pub const PIO_END: u64 = 0x1_0000;

/// ECAM base (PCI Express base specification, 7.2.2).
pub const ECAM_START: u64 = 0xE000_0000;
/// ECAM of one bus: 32 slots of 8 functions of 4 KiB.
pub const ECAM_LEN: u64 = MIB;

/// Where the guest of `doorbell bench --guest linux` marks its steps ([`crate::bench::linux`]); nothing is there in other
/// runs. In memory, because Debian's cloud kernel has no /dev/port; outside everything that the guest is told of, because
/// /dev/mem is closed for what a driver has claimed.
pub const MARKER_START: u64 = 0xFEB0_0000;
/// Its bytes: one 32-bit register.
pub const MARKER_LEN: u64 = 4;

/// The in-kernel IOAPIC.
pub const IOAPIC_START: u32 = 0xFEC0_0000;
/// The local APICs.
pub const LAPIC_START: u32 = 0xFEE0_0000;
/// A page that KVM needs on Intel CPUs (`KVM_SET_IDENTITY_MAP_ADDR`), followed by the three of `KVM_SET_TSS_ADDR`.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// See [`KVM_IDENTITY_MAP`].
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// First serial port.
pub const SERIAL_PORT: u16 = 0x3F8;
/// Its interrupt.
pub const SERIAL_GSI: u32 = 4;
/// CONFIG_ADDRESS; CONFIG_DATA is four above.
pub const PCI_CONFIG_PORT: u16 = 0xCF8;
/// The reset control register, inside the range of CONFIG_ADDRESS: byte accesses only.
pub const RESET_PORT: u16 = 0xCF9;
/// What the guest writes there to be reset.
pub const RESET_VALUE: u8 = 0x06;
/// The keyboard controller's command port: only its "pulse the reset line" command is known.
pub const KEYBOARD_PORT: u16 = 0x64;
/// ACPI sleep control register (ACPI 6.4, 4.8.3.7); the status register is one above.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// The value of `_S5`: soft off.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Where a guest's kernel says that it panicked, as on QEMU (docs/specs/pvpanic.rst there).
pub const PVPANIC_PORT: u16 = 0x505;

/// Where a guest writes the status of its run, as on QEMU (hw/misc/debugexit.c there, `isa-debug-exit`).
pub const DEBUG_EXIT_PORT: u16 = 0x501;
/// Its ports.
pub const DEBUG_EXIT_LEN: u64 = 2;

/// First GSI of the PCI INTx lines.
pub const INTX_FIRST_GSI: u32 = 16;
/// How many there are, spread over the slots.
pub const INTX_LINES: u32 = 8;

/// Boot structures, all below 640 KiB.
pub mod boot {
    /// The GDT.
    pub const GDT: u64 = 0x500;
    /// `hvm_start_info` (PVH) with its memory map and module list behind it.
    pub const PVH_START_INFO: u64 = 0x6000;
    /// `boot_params`, the "zero page" (Linux boot protocol).
    pub const ZERO_PAGE: u64 = 0x7000;
    /// Page tables: PML4, PDPT, four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Boot stack, grows down.
    pub const STACK: u64 = 0x1_8000;
    /// The kernel's command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// End of conventional memory.
    pub const LOW_MEMORY_END: u64 = 0x9_FC00;
    /// ACPI tables: the RSDP first, in the range where firmware-less guests look for it.
    pub const ACPI: u64 = 0xE_0000;
    /// End of the room for ACPI tables.
    pub const ACPI_END: u64 = RESET_VECTOR;
    /// Where a PC's firmware is entered in real mode, F000:FFF0; the last 16 bytes below 1 MiB.
    pub const RESET_VECTOR: u64 = 0xF_FFF0;
    /// Where high memory and kernels start.
    pub const HIGH_MEMORY: u64 = 0x10_0000;
}

/// The GSI of INTx pin `pin` (1 = A to 4 = D) of `slot`: spread over the lines as a PCI bridge swizzles them.
pub const fn intx_gsi(slot: u8, pin: u8) -> u32 {
    INTX_FIRST_GSI + (slot as u32 + pin as u32 - 1) % INTX_LINES
}
