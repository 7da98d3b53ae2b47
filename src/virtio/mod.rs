//! The virtio-blk device on PCI (virtio 1.2, 4.1 and 5.2).
//!
//! What lives here: the registers that a driver sees ([`VirtioBlk`] is the whole device), the doorbells that follow
//! its BAR, and the block device's features and configuration space. What may not: rings and requests (a queue
//! goes to the dataplane when the driver sets DRIVER_OK), files, and addresses of the machine.
//!
//! | file | what |
//! |---|---|
//! | `layout` | where the registers are, and the capabilities that say so |
//! | `access` | which register an access reaches; the PCI_CFG window |
//! | `common`, `queue` | the common configuration as a register file; a queue's registers as a `virtio_queue::Queue` |
//! | `block` | features and `virtio_blk_config` |
//! | `doorbells`, `kick` | ioeventfds, and kicks that came by exit |
//! | `device`, `reconcile` | the device: lock order; starting and stopping queues, reset |
//! | `device_status` | what an I/O thread may report about the device without a lock |

mod access;
mod block;
mod common;
mod device;
mod device_status;
mod doorbells;
mod error;
mod kick;
mod layout;
mod notify_path;
mod queue;
mod reconcile;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub use block::{BlkConfig, RemoteDisk};
pub use device::{Backends, VirtioBlk};
pub use error::VirtioError;
pub use layout::{MAX_QUEUE_SIZE, MAX_QUEUES};
pub use notify_path::NotifyPath;
pub use view::{DeviceView, QueueView, RingWords};
