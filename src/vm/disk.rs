use std::path::PathBuf;

use crate::backend::DiskOptions;
use crate::dataplane::{CompletePath, Moderation};
use crate::virtio::NotifyPath;

/// The thread that runs the queues of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoThreadChoice {
    /// The queues are spread over all I/O threads.
    #[default]
    Auto,
    /// All queues are on this I/O thread, counted from 0.
    Index(usize),
    /// All queues are on the VMM's main loop.
    None,
}

/// One disk, as plain data. The command line reads it from the text of `--disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// `path`, `readonly`, `backend` (io_uring), `size`, `direct`: the disk to open, and how to open it.
    pub options: DiskOptions,
    /// Request queues, 1 to 16 (1).
    pub queues: u16,
    /// Entries of each queue, a power of two from 2 to 1024 (256).
    pub queue_size: u16,
    /// The thread that runs the queues (auto).
    pub iothread: IoThreadChoice,
    /// How the guest's kicks reach the host (fast-mmio).
    pub notify: NotifyPath,
    /// How completions interrupt the guest (auto).
    pub complete: CompletePath,
    /// Whether VIRTIO_F_EVENT_IDX is offered (on).
    pub event_idx: bool,
    /// Whether VIRTIO_F_NOTIFICATION_DATA is offered (off).
    pub notification_data: bool,
    /// Whether and how long interrupts are held (auto).
    pub moderation: Moderation,
    /// The socket of the vhost-user backend that runs the queues. `options`, `iothread`, `moderation` and `serial` mean nothing
    /// then.
    pub vhost_user: Option<PathBuf>,
    /// Serial number for GET_ID, at most 20 bytes of printable ASCII; `None`: one is generated.
    pub serial: Option<String>,
}

impl DiskConfig {
    /// One queue of 256 entries, EVENT_IDX offered, each path the default of its kind.
    pub fn new(options: DiskOptions) -> DiskConfig {
        DiskConfig {
            options,
            queues: 1,
            queue_size: 256,
            iothread: IoThreadChoice::Auto,
            notify: NotifyPath::FastMmio,
            complete: CompletePath::Auto,
            event_idx: true,
            notification_data: false,
            moderation: Moderation::Auto,
            vhost_user: None,
            serial: None,
        }
    }
}
