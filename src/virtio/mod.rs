//! The virtio-blk device on PCI (virtio 1.2, 4.1 and 5.2).
//!
//! What lives here: the registers that a driver sees ([`VirtioBlk`] is the whole device), the doorbells that follow
//! its BAR, and the block device's features and configuration space. What may not: rings and requests (they are the
//! dataplane's, to which a queue goes as soon as the driver says DRIVER_OK), files, and addresses of the machine.
//!
//! | file | what |
//! |---|---|
//! | `layout` | where the registers are, and the capabilities that say so |
//! | `access` | which register an access reaches; the PCI_CFG window |
//! | `common`, `queue` | the common configuration as a register file |
//! | `block` | features and `virtio_blk_config` |
//! | `doorbells`, `kick` | ioeventfds, and kicks that came by exit |
//! | `device` | the device: what follows from the registers, reset, lock order |

mod access;
mod block;
mod common;
mod device;
mod doorbells;
mod health;
mod kick;
mod layout;
mod notify_path;
mod queue;
mod queue_loop;
mod view;

pub use block::BlkConfig;
pub use device::{Backends, VirtioBlk, VirtioError};
pub use layout::{MAX_QUEUE_SIZE, MAX_QUEUES};
pub use notify_path::NotifyPath;
pub use queue_loop::{QueueLoop, RunningQueue};
pub use view::{DeviceView, QueueView};
