//! The block device's features and configuration space (virtio 1.2, 5.2).

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::{
    VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::backend::Geometry;
use crate::dataplane::{BlockParams, CompletePath, Moderation};

use super::NotifyPath;
use super::layout::{DEVICE_LEN, MAX_QUEUE_SIZE, MAX_QUEUES};

/// Bytes of a sector: the unit of request positions and of `capacity`, whatever the logical block size (virtio 1.2, 5.2.4).
const SECTOR: u32 = 512;
/// Largest discard and write-zeroes, in sectors: 1 GiB, so that one request does not keep a thread for long.
const MAX_RANGE_SECTORS: u32 = 1 << 21;
/// Most data buffers of a request: readv(2) and writev(2) take 1024 (IOV_MAX); two are left for header and status.
const MAX_SEGMENTS: u32 = 1022;

/// Offset of `writeback` in `virtio_blk_config`.
const WRITEBACK: u64 = 32;

/// A disk whose queues another process runs: what that process said of it.
#[derive(Clone, Debug)]
pub struct RemoteDisk {
    /// The features that it offers.
    pub features: u64,
    /// `virtio_blk_config`.
    pub config: [u8; DEVICE_LEN],
}

impl RemoteDisk {
    /// Its size in sectors of 512 bytes.
    pub fn capacity(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.config[..8]);
        u64::from_le_bytes(bytes)
    }

    /// Whether it may only be read.
    pub fn readonly(&self) -> bool {
        self.features >> VIRTIO_BLK_F_RO & 1 != 0
    }
}

/// The features of a disk that a process behind it may have or not; the others of a disk are the device's own.
const REMOTE_FEATURES: [u32; 10] = [
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_BLK_SIZE,
    VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_DISCARD,
    VIRTIO_BLK_F_WRITE_ZEROES,
];

/// The description of a disk.
#[derive(Clone, Debug)]
pub struct BlkConfig {
    /// For threads, logs and tables: "disk0".
    pub name: String,
    /// Capacity in sectors of 512 bytes, until [`VirtioBlk::set_capacity`](super::VirtioBlk::set_capacity) changes it.
    pub capacity: u64,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether DISCARD is offered: the backend can free space.
    pub discard: bool,
    /// Block sizes that the guest sees, in bytes.
    pub geometry: Geometry,
    /// Serial number, returned by GET_ID; cut to 20 bytes.
    pub serial: String,
    /// Request queues, 1 to 16.
    pub queues: u16,
    /// Descriptors of each queue, a power of two from 2 to 1024.
    pub queue_size: u16,
    /// How kicks reach the host.
    pub notify: NotifyPath,
    /// How completions reach the guest.
    pub complete: CompletePath,
    /// Whether RING_PACKED is offered. A driver that does not accept it uses split rings.
    pub packed: bool,
    /// Whether EVENT_IDX is offered.
    pub event_idx: bool,
    /// Whether NOTIFICATION_DATA is offered: a kick then carries the queue and the available index, 32 bits.
    pub notification_data: bool,
    /// How interrupts are held back, until [`VirtioBlk::moderation`](super::VirtioBlk::moderation) changes it.
    pub moderation: Moderation,
    /// What the process that runs its queues says of it; capacity, block sizes and serial number are that process's then.
    pub remote: Option<RemoteDisk>,
}

impl BlkConfig {
    /// Why the description is invalid, if it is.
    pub(super) fn problem(&self) -> Option<String> {
        let BlkConfig { name, queues, queue_size, .. } = self;
        if !(1..=MAX_QUEUES).contains(queues) {
            return Some(format!("{name} cannot have {queues} queues; use 1 to {MAX_QUEUES}"));
        }
        if !queue_size.is_power_of_two() || !(2..=MAX_QUEUE_SIZE).contains(queue_size) {
            return Some(format!(
                "{name} cannot have queues of {queue_size}; use a power of two from 2 to {MAX_QUEUE_SIZE}"
            ));
        }
        None
    }

    /// The features that the device offers.
    pub(super) fn features(&self) -> u64 {
        if let Some(remote) = &self.remote {
            let theirs = REMOTE_FEATURES.iter().fold(0, |mask, bit| mask | 1 << bit) & remote.features;
            let hidden = u64::from(!self.event_idx) << VIRTIO_RING_F_EVENT_IDX;
            let several = u64::from(self.queues > 1) << VIRTIO_BLK_F_MQ;
            return theirs & !hidden | several | 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_F_RING_RESET;
        }
        let mut bits = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_F_RING_RESET,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
        ];
        if self.packed {
            bits.push(VIRTIO_F_RING_PACKED);
        }
        if self.event_idx {
            bits.push(VIRTIO_RING_F_EVENT_IDX);
        }
        if self.notification_data {
            bits.push(VIRTIO_F_NOTIFICATION_DATA);
        }
        if self.queues > 1 {
            bits.push(VIRTIO_BLK_F_MQ);
        }
        if self.readonly {
            bits.push(VIRTIO_BLK_F_RO);
        } else {
            bits.push(VIRTIO_BLK_F_WRITE_ZEROES);
        }
        if self.discard && !self.readonly {
            bits.push(VIRTIO_BLK_F_DISCARD);
        }
        bits.into_iter().fold(0, |features, bit| features | 1 << bit)
    }

    /// The parameters that request parsing needs.
    pub(super) fn params(&self) -> BlockParams {
        let mut serial = [0; 20];
        for (to, from) in serial.iter_mut().zip(self.serial.bytes()) {
            *to = from;
        }
        BlockParams {
            readonly: self.readonly,
            serial,
            max_discard_sectors: MAX_RANGE_SECTORS,
            max_write_zeroes_sectors: MAX_RANGE_SECTORS,
            ..BlockParams::new(self.capacity)
        }
    }
}

/// `struct virtio_blk_config`: the fields to which an offered feature gives meaning; the others are 0.
pub(super) fn config_space(config: &BlkConfig, params: &BlockParams) -> [u8; DEVICE_LEN] {
    let mut space = config.remote.as_ref().map_or([0; DEVICE_LEN], |remote| remote.config);
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    if config.remote.is_some() {
        put(34, &config.queues.to_le_bytes());
        return space;
    }
    // A chain without indirect descriptors has at most `queue_size` descriptors; two are header and status.
    let segments = u32::from(config.queue_size).saturating_sub(2).clamp(1, MAX_SEGMENTS);
    put(0, &params.capacity.load(Ordering::Relaxed).to_le_bytes());
    put(12, &segments.to_le_bytes());
    let geometry = config.geometry;
    let logical = geometry.logical_block.max(SECTOR);
    put(20, &logical.to_le_bytes());
    put(24, &[(geometry.physical_block / logical).checked_ilog2().unwrap_or(0) as u8]);
    // The rest of the topology is in logical blocks.
    put(25, &[(geometry.alignment_offset / logical) as u8]);
    put(26, &((geometry.minimum_io / logical).min(u16::MAX.into()) as u16).to_le_bytes());
    put(28, &(geometry.optimal_io / logical).to_le_bytes());
    put(WRITEBACK as usize, &[params.writeback.load(Ordering::Relaxed).into()]);
    put(34, &config.queues.to_le_bytes());
    // One segment per request: its range is the whole request.
    if config.discard && !config.readonly {
        put(36, &params.max_discard_sectors.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &(geometry.discard_granularity / SECTOR).max(1).to_le_bytes());
    }
    if !config.readonly {
        put(48, &params.max_write_zeroes_sectors.to_le_bytes());
        put(52, &1u32.to_le_bytes());
        // write_zeroes_may_unmap: writing zeroes may free space if a discard may.
        put(56, &[config.discard.into()]);
    }
    space
}

/// The cache mode that negotiation leads to (virtio 1.2, 5.2.5.2 and 5.2.6.2): a driver that can flush gets a
/// write-back cache; for any other every completed write must be durable, unless it switches that off by CONFIG_WCE.
pub(super) fn writeback_after(features: u64) -> bool {
    features >> VIRTIO_BLK_F_FLUSH & 1 != 0
}

/// The value of `writeback` in a driver's store to the configuration space; `None` if the driver may not write
/// it (virtio 1.2, 5.2.4: only with CONFIG_WCE) or the store is elsewhere. Values other than 0 count as 1.
pub(super) fn written_writeback(features: u64, offset: u64, data: &[u8]) -> Option<bool> {
    let at = usize::try_from(WRITEBACK.checked_sub(offset)?).ok()?;
    let byte = data.get(at)?;
    (features >> VIRTIO_BLK_F_CONFIG_WCE & 1 != 0).then_some(*byte != 0)
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
