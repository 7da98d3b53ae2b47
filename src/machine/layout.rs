//! The address map: every guest-physical address and I/O port of the machine, in one place.
//!
//! ```text
//! 0                RAM (boot structures below 1 MiB, kernel from 1 MiB up)
//! 0xC000_0000      32-bit window for memory BARs, 512 MiB
//! 0xE000_0000      ECAM: config space of bus 0
//! 0xFEB0_0000      one register for the program that runs the machine
//! 0xFEC0_0000      IOAPIC          0xFEE0_0000  local APICs
//! 0x1_0000_0000    the rest of RAM
//! 0x8_0000_0000    64-bit window for memory BARs, 32 GiB (within 36 physical address bits, the least x86-64 has)
//! ```

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Smallest guest RAM.
pub const RAM_MIN: u64 = 128 * MIB;
/// Largest guest RAM.
pub const RAM_MAX: u64 = 8 * GIB;
/// The most vCPUs. Their APIC IDs, one per vCPU, fit the 8 bits of xAPIC.
pub const VCPUS_MAX: u8 = 16;

/// The highest end of low RAM. From here to 4 GiB is the hole for devices.
pub const LOW_RAM_END: u64 = 0xC000_0000;
/// Start of the RAM above the hole.
pub const HIGH_RAM_START: u64 = 4 * GIB;

/// Start of the 32-bit window for memory BARs.
pub const MMIO32_START: u64 = 0xC000_0000;
/// End of this window (exclusive).
pub const MMIO32_END: u64 = 0xE000_0000;
/// Start of the 64-bit window for memory BARs.
pub const MMIO64_START: u64 = 0x8_0000_0000;
/// End of this window (exclusive).
pub const MMIO64_END: u64 = 0x10_0000_0000;
/// Start of the window for I/O BARs.
pub const PIO_START: u64 = 0xC000;
/// End of this window (exclusive).
pub const PIO_END: u64 = 0x1_0000;

/// Start of ECAM (PCI Express base specification, 7.2.2).
pub const ECAM_START: u64 = 0xE000_0000;
/// Length of the ECAM of one bus: 32 slots of 8 functions of 4 KiB.
pub const ECAM_LEN: u64 = MIB;

/// Reserved for the program that runs the machine: a register by which a guest's job reports its progress or its status.
/// The machine itself puts nothing here. It is MMIO, because Debian's cloud kernel has no /dev/port. No table reports it
/// to the guest, because /dev/mem refuses ranges that a driver has claimed.
pub const EMBEDDER_START: u64 = 0xFEB0_0000;
/// Its length in bytes: one 32-bit register.
pub const EMBEDDER_LEN: u64 = 4;

/// Address of the in-kernel IOAPIC.
pub const IOAPIC_START: u32 = 0xFEC0_0000;
/// Address of the local APICs.
pub const LAPIC_START: u32 = 0xFEE0_0000;
/// A page that KVM needs on Intel CPUs (`KVM_SET_IDENTITY_MAP_ADDR`), followed by the three of `KVM_SET_TSS_ADDR`.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// See [`KVM_IDENTITY_MAP`].
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// Port of the first serial port.
pub const SERIAL_PORT: u16 = 0x3F8;
/// GSI of the first serial port.
pub const SERIAL_GSI: u32 = 4;
/// CONFIG_ADDRESS. CONFIG_DATA is at this port plus 4.
pub const PCI_CONFIG_PORT: u16 = 0xCF8;
/// The reset control register, inside the range of CONFIG_ADDRESS. It takes byte accesses only.
pub const RESET_PORT: u16 = 0xCF9;
/// The value that resets the machine.
pub const RESET_VALUE: u8 = 0x06;
/// The keyboard controller's command port. Only the command that pulses the reset line has an effect.
pub const KEYBOARD_PORT: u16 = 0x64;
/// ACPI sleep control register (ACPI 6.4, 4.8.3.7). The status register is at this port plus 1.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// The value of `_S5`: soft off.
pub const SLEEP_TYPE_S5: u8 = 5;

/// The pvpanic port: a guest's kernel reports its panic here, as on QEMU (docs/specs/pvpanic.rst in QEMU's source).
pub const PVPANIC_PORT: u16 = 0x505;

/// Where a guest writes the status of its run, as on QEMU (hw/misc/debugexit.c there, `isa-debug-exit`).
pub const DEBUG_EXIT_PORT: u16 = 0x501;
/// Its ports.
pub const DEBUG_EXIT_LEN: u64 = 2;

/// First GSI of the PCI INTx lines.
pub const INTX_FIRST_GSI: u32 = 16;
/// Number of INTx lines. The pins of the slots are spread over them.
pub const INTX_LINES: u32 = 8;

/// Boot structures, all below 640 KiB.
pub mod boot {
    /// The GDT.
    pub const GDT: u64 = 0x500;
    /// `hvm_start_info` (PVH) with its memory map and module list behind it.
    pub const PVH_START_INFO: u64 = 0x6000;
    /// `boot_params`, the "zero page" (Linux boot protocol).
    pub const ZERO_PAGE: u64 = 0x7000;
    /// The page tables: PML4, PDPT, four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Top of the boot stack; it grows downwards.
    pub const STACK: u64 = 0x1_8000;
    /// The kernel's command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// End of conventional memory.
    pub const LOW_MEMORY_END: u64 = 0x9_FC00;
    /// The ACPI tables, the RSDP first. Guests without firmware search this range for it.
    pub const ACPI: u64 = 0xE_0000;
    /// End of the space for ACPI tables.
    pub const ACPI_END: u64 = RESET_VECTOR;
    /// The entry of a PC's firmware in real mode, F000:FFF0: the last 16 bytes below 1 MiB.
    pub const RESET_VECTOR: u64 = 0xF_FFF0;
    /// Start of high memory. Kernels are loaded here.
    pub const HIGH_MEMORY: u64 = 0x10_0000;
}

/// Returns the GSI of INTx pin `pin` (1 = A to 4 = D) of `slot`. The pins are swizzled over the lines as by a PCI
/// bridge.
pub const fn intx_gsi(slot: u8, pin: u8) -> u32 {
    INTX_FIRST_GSI + (slot as u32 + pin as u32 - 1) % INTX_LINES
}
