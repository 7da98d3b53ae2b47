//! The probe guest's memory map; part of [`super`], the interface between guest and host.

/// Guest memory that the probe needs, from address 0. More is ignored.
pub const RAM_SIZE: u64 = 0x0400_0000;
/// Where the image begins: page tables (so this is CR3), descriptor tables, stubs, ring-0 stacks.
pub const IMAGE_BASE: u64 = 0x0020_0000;
/// The image ends below this.
pub const IMAGE_LIMIT: u64 = 0x0030_0000;
/// CR3: four levels, 0 to 4 GiB one to one, user and writable throughout, the last GiB uncached.
pub const PAGE_TABLES: u64 = IMAGE_BASE;
/// GDT, limit [`GDT_LIMIT`]; CPU n's TSS selector is `0x40 + 16 * n`.
pub const GDT: u64 = IMAGE_BASE + 0x7000;
/// Limit of the GDT.
pub const GDT_LIMIT: u16 = 0x7f;
/// TSS of CPU 0; the next ones follow every [`TSS_STRIDE`] bytes. Limit 0x67.
pub const TSS: u64 = IMAGE_BASE + 0x7100;
/// Distance between two TSS.
pub const TSS_STRIDE: u64 = 0x80;
/// IDT, limit 0xfff.
pub const IDT: u64 = IMAGE_BASE + 0x8000;
/// Ring-0 stubs, one per vector, every 64 bytes.
pub const STUBS: u64 = IMAGE_BASE + 0x9000;
/// Ring-0 stacks, one page per CPU, growing down from the end of the page.
pub const RING0_STACKS: u64 = IMAGE_BASE + 0xd000;
/// The entry point of a CPU that the host starts at ring 3; RDI holds the CPU's index (its APIC ID). It sets its
/// own stack.
pub const RING3_ENTRY: u64 = IMAGE_BASE + 0x1_1000;
/// Virtual address of the local APIC page: an alias low enough for one-instruction EOI stores.
pub const LAPIC_ALIAS: u64 = 0x7fe0_0000;

/// [`super::Control`], 4 KiB.
pub const CONTROL: u64 = 0x0030_0000;
/// [`super::Control`]'s floor word: the guest writes a block's running number here before its store.
pub const FLOOR_WORD: u64 = CONTROL + 0x200;
/// A host that answers through memory writes here the number that it saw.
pub const FLOOR_ANSWER: u64 = CONTROL + 0x240;
/// [`super::Trap`]: the exception that stopped the guest, written by ring 0.
pub const TRAP: u64 = CONTROL + 0x280;
/// Per CPU: a [`super::GuestJob`] at +0, an [`super::Outcome`] at +[`OUTCOME_OFFSET`]; every [`CPU_STRIDE`] bytes.
pub const CPU_AREA: u64 = 0x0030_1000;
/// Distance between two CPUs' areas.
pub const CPU_STRIDE: u64 = 0x400;
/// Where in a CPU's area the outcome is.
pub const OUTCOME_OFFSET: u64 = 0x200;
/// Table of [`super::DeviceInfo`], [`super::MAX_DEVICES`] entries.
pub const DEVICE_TABLE: u64 = 0x0030_2000;
/// Per vector 64 bytes: count (u64), TSC in the handler (u64, timestamped vectors), INTx interrupts that the
/// ISR register confirmed (u64).
pub const VECTOR_TABLE: u64 = 0x0031_0000;
/// Distance between two vectors' words.
pub const VECTOR_STRIDE: u64 = 64;
/// Per device 8 bytes: address of the ISR register that its INTx stub reads.
pub const ISR_TABLE: u64 = 0x0031_4000;
/// [`super::Sample`]s of CPU 0; the next CPUs follow every [`SAMPLE_STRIDE`] bytes.
pub const SAMPLES: u64 = 0x0040_0000;
/// Distance between two CPUs' samples.
pub const SAMPLE_STRIDE: u64 = 0x0030_0000;
/// Rings, headers, status bytes and indirect tables, [`QUEUE_STRIDE`] bytes per queue, [`super::MAX_QUEUES`] per device.
pub const QUEUE_MEMORY: u64 = 0x0100_0000;
/// Memory of one queue.
pub const QUEUE_STRIDE: u64 = 0x1_4000;
/// Data buffers, [`POOL_SIZE`] bytes per CPU: depth x size must fit.
pub const POOL: u64 = 0x01a0_0000;
/// Data buffers per CPU.
pub const POOL_SIZE: u64 = 0x0080_0000;
/// Real-mode page into which the guest copies the start code of further CPUs, when it starts them itself.
pub const TRAMPOLINE: u64 = 0x8000;
