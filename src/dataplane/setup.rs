use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::moderation::ModerationSwitch;
use super::{Interrupt, QueueTrace};
use crate::backend::Backend;

/// The guest-physical addresses and features of a virtqueue, split (virtio 1.2, 2.7) or packed (2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Whether VIRTIO_F_RING_PACKED was negotiated.
    pub packed: bool,
    /// Number of entries, 1 to 32768; of a split queue a power of two.
    pub size: u16,
    /// Address of the descriptor table or ring, 16-byte aligned.
    pub desc: u64,
    /// Address of the driver area: available ring, 2-byte aligned, or the driver's event suppression structure, 4-byte
    /// aligned.
    pub avail: u64,
    /// Address of the device area, 4-byte aligned: used ring, or the device's event suppression structure.
    pub used: u64,
    /// Whether VIRTIO_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// Whether VIRTIO_F_INDIRECT_DESC was negotiated.
    pub indirect: bool,
}

impl QueueLayout {
    /// Returns a split queue at these addresses, without EVENT_IDX and INDIRECT_DESC.
    pub fn split(size: u16, desc: u64, avail: u64, used: u64) -> QueueLayout {
        QueueLayout { packed: false, size, desc, avail, used, event_idx: false, indirect: false }
    }
}

/// The properties of the disk that request parsing needs.
#[derive(Debug)]
pub struct BlockParams {
    /// Capacity in sectors of 512 bytes; a resize changes it.
    pub capacity: AtomicU64,
    /// Whether writes are refused with IOERR.
    pub readonly: bool,
    /// The serial number for GET_ID, padded with zeroes.
    pub serial: [u8; 20],
    /// Whether writes may complete before they are durable. The guest may change it (virtio 1.2, 5.2.5.2).
    pub writeback: AtomicBool,
    /// Largest discard, in sectors.
    pub max_discard_sectors: u32,
    /// Largest write-zeroes, in sectors.
    pub max_write_zeroes_sectors: u32,
}

impl BlockParams {
    /// Returns a writable disk of `sectors`, without a serial number, discard and write-zeroes.
    pub fn new(sectors: u64) -> BlockParams {
        BlockParams {
            capacity: sectors.into(),
            readonly: false,
            serial: [0; 20],
            writeback: AtomicBool::new(true),
            max_discard_sectors: 0,
            max_write_zeroes_sectors: 0,
        }
    }
}

/// The counters of one queue. The thread that owns the queue writes them, any thread may read them. They are aligned
/// to cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    /// Requests completed.
    pub requests: AtomicU64,
    /// Of these, those that failed (IOERR or UNSUPP).
    pub errors: AtomicU64,
    /// Bytes read from the disk.
    pub bytes_read: AtomicU64,
    /// Bytes written to the disk.
    pub bytes_written: AtomicU64,
    /// Wake-ups by the kick eventfd.
    pub wakeups: AtomicU64,
    /// Of these, those that found the ring empty.
    pub spurious: AtomicU64,
    /// Publications of the used index.
    pub batches: AtomicU64,
    /// Batches for which the driver wanted no interrupt.
    pub suppressed: AtomicU64,
    /// Interrupts that were held.
    pub held: AtomicU64,
    /// Completions without a separate interrupt, because one was held.
    pub merged: AtomicU64,
    /// Held interrupts that were sent because nothing more came in time.
    pub expired: AtomicU64,
    /// Of these, holds that brought no further completion.
    pub failed: AtomicU64,
    /// The longest time that an interrupt was held, in nanoseconds.
    pub longest_hold_ns: AtomicU64,
    /// System calls made for this queue: interrupts, and those of its backend.
    pub system_calls: AtomicU64,
    /// The position in the rings, stored once per batch: see [`QueueCounters::position`].
    pub(super) position: AtomicU64,
    /// The timestamps of requests, while a trace is on.
    pub trace: QueueTrace,
}

/// A copy of [`QueueCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounts {
    /// Requests completed.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Wake-ups by a kick.
    pub wakeups: u64,
    /// Of these, with nothing to do.
    pub spurious: u64,
    /// Publications of the used index.
    pub batches: u64,
    /// Batches without an interrupt, because the driver wanted none.
    pub suppressed: u64,
    /// Interrupts that were held.
    #[serde(default)]
    pub held: u64,
    /// Completions that needed no interrupt of their own, because one was held.
    #[serde(default)]
    pub merged: u64,
    /// Held interrupts that were sent because nothing more came in time.
    #[serde(default)]
    pub expired: u64,
    /// Of these, holds that brought no further completion.
    #[serde(default)]
    pub failed: u64,
    /// The longest hold, in nanoseconds.
    #[serde(default)]
    pub longest_hold_ns: u64,
    /// System calls for this queue.
    pub system_calls: u64,
}

/// The position of a queue in its rings after its last batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// The next available entry that the device takes: an index, or in a packed ring the offset, with the wrap counter in
    /// bit 15.
    pub avail: u16,
    /// The next used entry that the device writes, likewise.
    pub used: u16,
    /// Requests at the backend.
    pub in_flight: u32,
}

impl QueueCounters {
    /// Returns the counts now.
    pub fn counts(&self) -> QueueCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounts {
            requests: read(&self.requests),
            errors: read(&self.errors),
            bytes_read: read(&self.bytes_read),
            bytes_written: read(&self.bytes_written),
            wakeups: read(&self.wakeups),
            spurious: read(&self.spurious),
            batches: read(&self.batches),
            suppressed: read(&self.suppressed),
            held: read(&self.held),
            merged: read(&self.merged),
            expired: read(&self.expired),
            failed: read(&self.failed),
            longest_hold_ns: read(&self.longest_hold_ns),
            system_calls: read(&self.system_calls),
        }
    }

    /// Returns the position after the last batch; all 0 before the first.
    pub fn position(&self) -> QueuePosition {
        let word = self.position.load(Ordering::Relaxed);
        QueuePosition { avail: word as u16, used: (word >> 16) as u16, in_flight: (word >> 32) as u32 }
    }
}

/// A queue that is ready to run: everything that an I/O thread needs.
pub struct QueueSetup {
    /// The name in messages and tables: "disk0 queue 1".
    pub name: String,
    /// The addresses of the rings.
    pub layout: QueueLayout,
    /// The features that the driver accepted.
    pub features: u64,
    /// The guest's RAM, held until the queue is detached.
    pub memory: Arc<GuestMemoryMmap>,
    /// The eventfd that every kick signals. Non-blocking.
    pub kick: Arc<EventFd>,
    /// The backend that moves the bytes.
    pub backend: Box<dyn Backend>,
    /// The interrupt of the queue.
    pub interrupt: Interrupt,
    /// How interrupts are held. It may change while the queue runs.
    pub moderation: Arc<ModerationSwitch>,
    /// The properties of the disk.
    pub block: Arc<BlockParams>,
    /// The counters of the queue.
    pub counters: Arc<QueueCounters>,
    /// Called once, on the owning thread, when the driver has broken a rule of the ring. The device needs a reset.
    pub broken: Arc<dyn Fn() + Send + Sync>,
}
