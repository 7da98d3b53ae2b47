//! Disks whose queues another process runs: the frontend of the vhost-user protocol, for virtio-blk.
//!
//! What lives here: the connection to a backend ([`VhostDisk`]), and the queues that it runs, as a [`QueueLoop`] so that the
//! device is the same as for queues of our own. What may not: registers, PCI, requests.
//!
//! The backend gets guest RAM, and for each queue two eventfds. The *kick* is the one that our ioeventfd signals, so a kick
//! goes from the guest's store to the backend inside the kernel. The *call* is, where irqfds are used, the eventfd of the
//! queue's MSI-X vector: the backend's write goes into KVM, and while the vector is masked the eventfd's counter is the pending
//! bit. Either way no thread of ours runs between guest and backend. With `complete=signal-msi` and with INTx a relay reads
//! the call and interrupts the guest.
//!
//! | file | what |
//! |---|---|
//! | `disk` | the backend of one disk: connecting, its features and configuration, connecting again |
//! | `queue` | a queue that the backend runs |
//! | `watchdog` | the thread of a disk: relays calls, notices the backend's death, ends requests that get no reply |
//! | `error` | what can go wrong, in one sentence each |
//!
//! [`QueueLoop`]: crate::dataplane::QueueLoop

mod disk;
mod error;
mod queue;
mod watchdog;

pub use disk::{CONFIG_LEN, VhostDisk};
pub use error::VhostError;
pub use queue::{NoBackend, loops};
