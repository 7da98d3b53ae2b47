//! Values of the fields of jobs and outcomes; part of [`super`], the interface between guest and host.

/// Vectors: each range has its own kind of ring-0 stub.
pub mod vector {
    /// Wakes a CPU that idles halted ([`super::idle::HALT`]).
    pub const WAKE: u32 = 0x30;
    /// First of the plain vectors (count, EOI, IRETQ).
    pub const PLAIN: u32 = 0x40;
    /// First of the timestamped vectors (TSC, count, EOI): some instructions longer.
    pub const STAMPED: u32 = 0xa0;
    /// First of the INTx vectors, one per device: reads the ISR register, then as plain.
    pub const INTX: u32 = 0xd0;
    /// After the last INTx vector.
    pub const END: u32 = 0xe8;
    /// Configuration change of any device; plain.
    pub const CONFIG: u32 = 0xf0;
    /// Spurious interrupts of the local APIC; counted, no EOI.
    pub const SPURIOUS: u32 = 0xff;
}

/// [`super::Control::mode`].
pub mod mode {
    /// The job is on the kernel command line, results are text, the guest ends by itself.
    pub const TEXT: u32 = 0;
    /// Jobs come one by one through memory.
    pub const HOST: u32 = 1;
}

/// [`super::Control::idle`]: how a CPU waits for its next job.
pub mod idle {
    /// Spin with PAUSE.
    pub const SPIN: u32 = 0;
    /// HLT until any interrupt: after writing `seq` the host sends [`super::vector::WAKE`] to that CPU.
    pub const HALT: u32 = 1;
    /// HLT with the local APIC's timer as the alarm: checks about every millisecond and needs no message. For hosts that
    /// only share memory with the guest.
    pub const TIMER: u32 = 2;
}

/// [`super::Control::state`].
pub mod state {
    /// Not started.
    pub const OFF: u32 = 0;
    /// CPU 0 runs and scans the PCI bus.
    pub const BOOTING: u32 = 1;
    /// The guest accepts jobs.
    pub const READY: u32 = 2;
    /// Stopped: see [`super::super::Trap`], or a wrong version.
    pub const FAILED: u32 = 3;
    /// Ended by [`super::kind::END`].
    pub const ENDED: u32 = 4;
}

/// [`super::GuestJob::kind`].
pub mod kind {
    /// Nothing; `tsc_begin` and `tsc_end` tell the time.
    pub const NOP: u32 = 0;
    /// Bring `device` up: reset, features, queues, vectors, DRIVER_OK. Outcome `value`: queues made,
    /// `features`: those accepted.
    pub const SETUP: u32 = 1;
    /// Reset `device` and leave it so.
    pub const RESET: u32 = 2;
    /// Requests on one queue of `device`.
    pub const IO: u32 = 3;
    /// The floor: store to `address`, wait for `vector` (or for memory), no virtio.
    pub const FLOOR: u32 = 4;
    /// `requests` stores to `address` and nothing else: the kick alone.
    pub const STORE: u32 = 5;
    /// An attack on `device`; `op` is one of [`super::attack`].
    pub const HOSTILE: u32 = 6;
    /// One access chosen by `op` ([`super::poke`]); outcome `value` is what was read.
    pub const POKE: u32 = 7;
    /// Empty rounds, which measure the cost of reading the TSC.
    pub const EMPTY: u32 = 8;
    /// CPU ends (halts with interrupts off).
    pub const END: u32 = 9;
}

/// [`super::GuestJob::op`] of [`kind::IO`]: the request type of virtio 1.2, 5.2.6, or [`op::VERIFY`].
pub mod op {
    /// VIRTIO_BLK_T_IN.
    pub const READ: u32 = 0;
    /// VIRTIO_BLK_T_OUT.
    pub const WRITE: u32 = 1;
    /// VIRTIO_BLK_T_FLUSH, no data.
    pub const FLUSH: u32 = 4;
    /// VIRTIO_BLK_T_GET_ID, 20 bytes; outcome `value` and `detail` are its first 16.
    pub const GET_ID: u32 = 8;
    /// VIRTIO_BLK_T_DISCARD of `size` bytes.
    pub const DISCARD: u32 = 11;
    /// VIRTIO_BLK_T_WRITE_ZEROES of `size` bytes.
    pub const WRITE_ZEROES: u32 = 13;
    /// Each slot writes its own pattern to its own sectors, reads it back and compares.
    pub const VERIFY: u32 = 0x100;
}

/// [`super::GuestJob::wait`] of [`kind::IO`] and [`kind::FLOOR`].
pub mod wait {
    /// Spin with PAUSE on the count that the interrupt handler increments.
    pub const SPIN: u32 = 0;
    /// HLT until the interrupt.
    pub const HALT: u32 = 1;
    /// Interrupts suppressed; poll the used ring (floor: [`super::super::FLOOR_ANSWER`]).
    pub const POLL: u32 = 2;
}

/// [`super::GuestJob::order`]: which sector a request goes to.
pub mod order {
    /// Always `sector`.
    pub const FIXED: u32 = 0;
    /// Upwards within `span`, and again.
    pub const SEQUENTIAL: u32 = 1;
    /// Anywhere in `span`, aligned to the request size, by xorshift from `seed`.
    pub const RANDOM: u32 = 2;
}

/// [`super::GuestJob::flags`], bits.
pub mod flag {
    /// SETUP: INTx instead of MSI-X; `pin` is the IOAPIC pin.
    pub const INTX: u32 = 1;
    /// SETUP: do not accept VIRTIO_F_EVENT_IDX.
    pub const NO_EVENT_IDX: u32 = 2;
    /// SETUP: do not accept VIRTIO_F_INDIRECT_DESC.
    pub const NO_INDIRECT: u32 = 4;
    /// SETUP: queue q interrupts CPU `cpu + q` instead of `cpu`.
    pub const SPREAD: u32 = 8;
    /// IO: fill written data with the pattern of `seed` and sector.
    pub const FILL: u32 = 16;
    /// IO: compare what was read with that pattern.
    pub const CHECK: u32 = 32;
    /// IO: a kick for every publication, even if the device wants none.
    pub const ALWAYS_KICK: u32 = 64;
    /// IO: every chain through an indirect table.
    pub const INDIRECT: u32 = 128;
    /// IO: `route_every` rewrites the MSI-X entry's data without masking it.
    pub const ROUTE_LIVE: u32 = 256;
    /// FLOOR, STORE: `address` is an I/O port.
    pub const PORT: u32 = 512;
    /// FLOOR: only write [`super::super::FLOOR_WORD`], store nothing to `address`.
    pub const NO_STORE: u32 = 1024;
    /// IO, depth 1: take the completion as soon as the ring shows it, even before its interrupt.
    pub const EAGER: u32 = 2048;
    /// SETUP: do not accept VIRTIO_BLK_F_MQ; use one queue.
    pub const NO_MQ: u32 = 4096;
    /// IO: submit as Linux does under an application with many requests in flight: one request and one kick decision at
    /// a time, `gap` ticks of the application's own before each, and completions taken on interrupts only.
    pub const ONE_BY_ONE: u32 = 8192;
    /// IO: reset the queue first and make it again with half the entries (VIRTIO_F_RING_RESET).
    pub const RESET_QUEUE: u32 = 16384;
    /// SETUP: kicks of 16 bits although VIRTIO_F_NOTIFICATION_DATA was accepted, which is wrong.
    pub const SHORT_KICK: u32 = 32768;
    /// SETUP: accept VIRTIO_F_RING_PACKED, if it is offered.
    pub const PACKED: u32 = 65536;
}

/// [`super::GuestJob::op`] of [`kind::POKE`].
pub mod poke {
    /// Load of `width` bytes from `address` (below 4 GiB).
    pub const LOAD: u32 = 0;
    /// Store of `value`.
    pub const STORE: u32 = 1;
    /// IN from port `address`.
    pub const IN: u32 = 2;
    /// OUT to port `address`.
    pub const OUT: u32 = 3;
    /// 32-bit read of configuration space: `address` = bus << 16 | device << 11 | function << 8 | offset.
    pub const CONFIG_READ: u32 = 4;
    /// 32-bit write of configuration space.
    pub const CONFIG_WRITE: u32 = 5;
}

/// [`super::GuestJob::op`] of [`kind::HOSTILE`]; outcome `value` is made of [`answer`] bits.
pub mod attack {
    /// Two descriptors whose NEXT fields point at each other.
    pub const LOOP: u32 = 0;
    /// NEXT beyond the queue size.
    pub const NEXT_OUT_OF_RANGE: u32 = 1;
    /// A data buffer where there is no memory.
    pub const ADDRESS_BEYOND_RAM: u32 = 2;
    /// A head index in the available ring beyond the queue size.
    pub const HEAD_OUT_OF_RANGE: u32 = 3;
    /// An available index more than a queue size ahead.
    pub const INDEX_JUMP: u32 = 4;
}

/// What a device did with an attack ([`super::Outcome::value`], bits).
pub mod answer {
    /// A used entry with status IOERR or UNSUPP (`detail`: the status).
    pub const REFUSED: u64 = 1;
    /// A used entry whose status byte was never written or says OK.
    pub const TAKEN: u64 = 2;
    /// DEVICE_NEEDS_RESET in the device status.
    pub const NEEDS_RESET: u64 = 4;
    /// Nothing until the deadline.
    pub const SILENT: u64 = 8;
    /// After a reset and the same set-up, one read succeeded.
    pub const RECOVERED: u64 = 16;
}

/// [`super::Outcome::status`].
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The deadline passed with work outstanding (`detail`: requests not completed). Reset the device before
    /// its next block: those requests may still write.
    pub const TIMEOUT: u32 = 1;
    /// The job is invalid (unknown kind, depth 0, data that does not fit the pool, ...).
    pub const BAD_JOB: u32 = 2;
    /// No such device.
    pub const NO_DEVICE: u32 = 3;
    /// The device is not set up, or it refused (`detail`: its status byte).
    pub const DEVICE: u32 = 4;
    /// The used ring named a request that was not in flight; the block stopped there.
    pub const RING: u32 = 5;
}
