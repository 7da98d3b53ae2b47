//! The interface between the probe guest and its host: places in guest memory, jobs, and outcomes.
//!
//! The guest includes this very file (`#[path]`), so there is one layout and no copy of it. Everything is
//! little endian, `repr(C)`, without padding; times are TSC ticks, sizes bytes, addresses guest-physical (the
//! guest maps its memory one to one). No `unsafe` lives here: a host moves the structures as bytes
//! ([`GuestJob::to_bytes`], [`Outcome::from_bytes`]). How a host uses it is in `guest-images/probe/README.md`.

use core::mem::{offset_of, size_of};

#[path = "probe_map.rs"]
mod map;
#[path = "probe_words.rs"]
mod words;
pub use map::*;
pub use words::*;

/// First word of [`Control`]: a host that drives the guest by jobs in memory writes it before the start.
pub const MAGIC: u64 = u64::from_le_bytes(*b"doorbell");
/// Layout version; the guest refuses any other (state [`state::FAILED`]).
pub const VERSION: u32 = 1;

/// Virtual CPUs, and so job slots, at most.
pub const MAX_CPUS: usize = 4;
/// virtio-blk functions the guest remembers, in bus order.
pub const MAX_DEVICES: usize = 28;
/// Queues per device at most.
pub const MAX_QUEUES: usize = 4;
/// Requests in flight per block at most.
pub const MAX_DEPTH: usize = 256;
/// Entries of a ring at most (virtio 1.2, 2.6: a power of two).
pub const MAX_QUEUE_SIZE: usize = 1024;
/// Samples kept per CPU and block; the rest of a longer block is counted, not sampled.
pub const MAX_SAMPLES: usize = 131_072;

/// Defines a `repr(C)` structure of integers without padding, and its way to and from bytes.
macro_rules! abi_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }

        impl $name {
            /// Bytes in guest memory.
            pub const SIZE: usize = size_of::<Self>();

            /// As it stands in guest memory.
            pub fn to_bytes(&self) -> [u8; size_of::<$name>()] {
                let mut out = [0; size_of::<$name>()];
                $(out[offset_of!($name, $field)..][..size_of::<$type>()]
                    .copy_from_slice(&self.$field.to_le_bytes());)*
                out
            }

            /// From guest memory.
            pub fn from_bytes(bytes: &[u8; size_of::<$name>()]) -> Self {
                let mut out = Self::default();
                $({
                    let mut word = [0; size_of::<$type>()];
                    word.copy_from_slice(&bytes[offset_of!($name, $field)..][..size_of::<$type>()]);
                    out.$field = <$type>::from_le_bytes(word);
                })*
                out
            }
        }

        // No padding: the fields fill the structure.
        const _: () = assert!(0 $(+ size_of::<$type>())* == size_of::<$name>());
    };
}

abi_struct! {
    /// What holds for the whole guest, at [`CONTROL`]. Host's fields first, written before the start.
    pub struct Control {
        /// [`MAGIC`]; without it the guest reads its jobs from the command line.
        pub magic: u64,
        /// [`VERSION`].
        pub version: u32,
        /// One of [`mode`].
        pub mode: u32,
        /// CPUs that the guest itself starts by INIT/SIPI, itself included; 0 and 1: none. A host that starts
        /// CPUs at [`RING3_ENTRY`] leaves 0.
        pub start_cpus: u32,
        /// One of [`idle`].
        pub idle: u32,
        /// ECAM base, below 4 GiB; 0: ports CF8/CFC.
        pub ecam: u64,
        /// Where BARs that nobody placed are put, upwards; 0: 0xD000_0000. Below 4 GiB.
        pub bar_window: u64,
        /// Port for text: 0x3F8, 0x402; 0 for none.
        pub text_port: u32,
        /// Guest: one of [`state`].
        pub state: u32,
        /// Guest: TSC when CPU 0 first ran Rust at ring 3.
        pub started: u64,
        /// Guest: TSC when it became ready.
        pub ready: u64,
        /// Guest: bit n set once CPU n takes jobs.
        pub cpus_up: u32,
        /// Guest: entries in the device table.
        pub devices: u32,
    }
}

abi_struct! {
    /// Written by ring 0 when an exception stops the guest, at [`TRAP`].
    pub struct Trap {
        /// Exception vector + 1; 0: none happened. 0x100: a Rust panic (text on the text port).
        pub vector: u64,
        /// CR2.
        pub address: u64,
        /// First word of the ring-0 frame: error code, or RIP where the exception has none.
        pub frame0: u64,
        /// Second word: RIP, or CS.
        pub frame1: u64,
        /// Third word.
        pub frame2: u64,
        /// Fourth word.
        pub frame3: u64,
    }
}

abi_struct! {
    /// One block of work for one CPU. The host writes the other fields first and `seq` last; the guest copies
    /// the job when `seq` differs from its outcome's `done`. A zero means "default" wherever one is named.
    pub struct GuestJob {
        /// Changes for every job.
        pub seq: u32,
        /// One of [`kind`].
        pub kind: u32,
        /// Index in the device table.
        pub device: u32,
        /// Queue, below what SETUP made.
        pub queue: u32,
        /// Requests in flight, 1 to [`MAX_DEPTH`].
        pub depth: u32,
        /// Requests (or stores) of the block.
        pub requests: u32,
        /// Bytes per request, a multiple of 512.
        pub size: u32,
        /// One of [`op`], [`poke`], [`attack`].
        pub op: u32,
        /// One of [`wait`].
        pub wait: u32,
        /// Bits of [`flag`].
        pub flags: u32,
        /// Data descriptors per request, 1 to 4; 0: 1.
        pub segments: u32,
        /// One of [`order`].
        pub order: u32,
        /// SETUP: vector of queue 0, the others follow; 0: PLAIN + 4 x device (INTX + device with INTx).
        /// FLOOR: the vector that the host will send.
        pub vector: u32,
        /// IO with `route_every`: the other vector; 0: the same.
        pub vector2: u32,
        /// SETUP, IO: destination of the interrupts (APIC ID); IO's is where SETUP put this queue's.
        pub cpu: u32,
        /// IO with `route_every`: the other destination.
        pub cpu2: u32,
        /// SETUP: queues wanted, 1 to [`MAX_QUEUES`]; 0: 1.
        pub queues: u32,
        /// SETUP: ring size; 0: the device's largest up to 256.
        pub queue_size: u32,
        /// SETUP with INTx: IOAPIC pin; 0: the interrupt line register if it is 16 to 23 (doorbell sets it), else
        /// q35's wiring, 20 + (slot + pin - 1) % 4.
        pub pin: u32,
        /// FLOOR, STORE, POKE: width of the access, 1, 2, 4 or 8 bytes; 0: 2.
        pub width: u32,
        /// IO: mask the vector before every n-th kick and unmask it `hold` later; 0: never.
        pub mask_every: u32,
        /// IO: move the vector before every n-th kick; 0: never.
        pub route_every: u32,
        /// Samples to keep; 0: as many as fit.
        pub samples: u32,
        /// Zero.
        pub reserved: u32,
        /// Ticks to let pass before each request (depth 1 only, FLOOR, STORE).
        pub gap: u64,
        /// Ticks without any progress after which the block gives up; 0: 2^34.
        pub deadline: u64,
        /// First sector (of 512 bytes).
        pub sector: u64,
        /// Sectors used from there; 0: up to the device's end.
        pub span: u64,
        /// Of the pattern and of [`order::RANDOM`]; 0: 1.
        pub seed: u64,
        /// FLOOR, STORE, POKE: where.
        pub address: u64,
        /// POKE: what to write. FLOOR, STORE: added to the running number that is stored.
        pub value: u64,
        /// Ticks that a vector stays masked.
        pub hold: u64,
        /// SETUP: device features that may be accepted; 0: all the guest knows.
        pub features: u64,
    }
}

abi_struct! {
    /// The result of a job. `done` is written last.
    pub struct Outcome {
        /// `seq` of the job that this belongs to, once it is finished.
        pub done: u32,
        /// One of [`status`].
        pub status: u32,
        /// Requests (rounds, stores) completed; kept up to date while the block runs.
        pub completed: u32,
        /// Samples written.
        pub samples: u32,
        /// Stores to the notify register.
        pub kicks: u64,
        /// Publications that needed none (EVENT_IDX or NO_NOTIFY).
        pub kicks_suppressed: u64,
        /// Interrupts handled for the queue's vectors.
        pub interrupts: u64,
        /// Of those, the ones that brought no completion (or, INTx, for which the ISR register was clear).
        pub spurious: u64,
        /// Bytes that differed from the expected pattern.
        pub data_errors: u64,
        /// Requests with a status other than OK.
        pub io_errors: u64,
        /// Used entries for a request of this block that had completed already.
        pub duplicates: u64,
        /// Used entries with an invalid identifier.
        pub unknown: u64,
        /// Completions in another order than the submissions.
        pub reordered: u64,
        /// HLT entered.
        pub halts: u64,
        /// Times the vector was masked and unmasked.
        pub masks: u64,
        /// Times the vector was moved.
        pub routes: u64,
        /// Times the used ring was drained and was not empty.
        pub batches: u64,
        /// TSC at the first submission.
        pub tsc_begin: u64,
        /// TSC after the last completion.
        pub tsc_end: u64,
        /// See the kinds.
        pub value: u64,
        /// See [`status`] and the kinds.
        pub detail: u64,
        /// SETUP: features accepted.
        pub features: u64,
    }
}

abi_struct! {
    /// One request, in order of completion.
    pub struct Sample {
        /// TSC before the request was published (FLOOR, STORE: before the store).
        pub start: u64,
        /// Ticks until the kick had returned; without a kick, until the driver knew that none was needed.
        pub kicked: u32,
        /// Ticks until the interrupt handler (timestamped vectors only; else 0).
        pub handler: u32,
        /// Ticks until the driver saw the handler's count change (POLL: the used index).
        pub seen: u32,
        /// Ticks until the used entry was taken and its status checked.
        pub done: u32,
    }
}

abi_struct! {
    /// A virtio-blk function as the guest found it. Addresses are valid once BARs are placed, before READY.
    pub struct DeviceInfo {
        /// bus << 8 | device << 3 | function.
        pub bdf: u32,
        /// PCI device ID (0x1042, 0x1001).
        pub id: u32,
        /// virtio device status as last read or written.
        pub status: u32,
        /// Queues made by the last SETUP.
        pub queues: u32,
        /// Capacity in sectors.
        pub capacity: u64,
        /// Features that the device offers.
        pub offered: u64,
        /// Common configuration.
        pub common: u64,
        /// Notify area; of an I/O BAR the port.
        pub notify: u64,
        /// ISR register.
        pub isr: u64,
        /// Device configuration.
        pub config: u64,
        /// MSI-X table; 0: none.
        pub msix_table: u64,
        /// MSI-X table entries.
        pub msix_size: u32,
        /// notify_off_multiplier.
        pub notify_multiplier: u32,
        /// 1: the notify area is I/O ports.
        pub notify_is_port: u32,
        /// Interrupt pin register (1 = INTA).
        pub interrupt_pin: u32,
        /// Where the MSI-X capability is in configuration space; 0: none.
        pub msix_capability: u32,
        /// IOAPIC pin, while the device uses INTx; else 0.
        pub intx_pin: u32,
        /// Zero.
        pub reserved: u32,
        /// Queue size in use.
        pub queue_size: u32,
    }
}

const _: () = assert!(Control::SIZE <= 0x200 && GuestJob::SIZE <= 0x200 && Outcome::SIZE <= 0x200);
const _: () = assert!(MAX_SAMPLES * Sample::SIZE <= SAMPLE_STRIDE as usize);
const _: () = assert!(DEVICE_TABLE + (MAX_DEVICES * DeviceInfo::SIZE) as u64 <= VECTOR_TABLE);
const _: () = assert!(SAMPLES + MAX_CPUS as u64 * SAMPLE_STRIDE <= QUEUE_MEMORY);
const _: () = assert!(QUEUE_MEMORY + (MAX_DEVICES * MAX_QUEUES) as u64 * QUEUE_STRIDE <= POOL);
const _: () = assert!(POOL + MAX_CPUS as u64 * POOL_SIZE <= RAM_SIZE);

#[cfg(test)]
#[path = "probe_abi_tests.rs"]
mod tests;
