use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VringConfigData};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::VhostError;
use super::disk::{Connection, VhostDisk};
use super::watchdog::Call;
use crate::backend::{Backend, Outcome, Request, Submitter};
use crate::dataplane::{DataplaneError, QueueLoop, QueueSetup, Ring, RunningQueue};
use crate::host::log;

/// One loop for each queue of a disk.
pub fn loops(disk: &Arc<VhostDisk>) -> Vec<Arc<dyn QueueLoop>> {
    let of = |index| Arc::new(VhostQueue::new(disk.clone(), index)) as Arc<dyn QueueLoop>;
    (0..usize::from(disk.queues())).map(of).collect()
}

/// Queue `index` of a disk, to be run by its backend.
pub(super) struct VhostQueue {
    disk: Arc<VhostDisk>,
    index: usize,
    name: String,
}

impl VhostQueue {
    pub(super) fn new(disk: Arc<VhostDisk>, index: usize) -> VhostQueue {
        let name = format!("vhost-user {}", disk.path().display());
        VhostQueue { disk, index, name }
    }

    fn start(&self, setup: &QueueSetup) -> Result<(Arc<Connection>, Arc<Call>), VhostError> {
        let connection = self.disk.connection(setup.features, &setup.memory)?;
        let (disk, n) = (&self.disk, self.index);
        let layout = setup.layout;
        let host = |at: u64| setup.memory.get_host_address(GuestAddress(at)).map(|at| at as u64);
        let missing = |error: vm_memory::GuestMemoryError| VhostError::Request {
            path: disk.path().into(),
            request: "SET_VRING_ADDR",
            why: error.to_string(),
        };
        let addresses = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: host(layout.desc).map_err(missing)?,
            used_ring_addr: host(layout.used).map_err(missing)?,
            avail_ring_addr: host(layout.avail).map_err(missing)?,
            log_addr: None,
        };
        disk.ask(&connection, "SET_VRING_NUM", |f| f.set_vring_num(n, layout.size))?;
        disk.ask(&connection, "SET_VRING_ADDR", |f| f.set_vring_addr(n, &addresses))?;
        // A queue starts with both indices at 0 (virtio 1.2, 2.7).
        disk.ask(&connection, "SET_VRING_BASE", |f| f.set_vring_base(n, 0))?;
        disk.ask(&connection, "SET_VRING_KICK", |f| f.set_vring_kick(n, &setup.kick))?;
        let call = Call::new(n, setup.interrupt.clone(), setup.broken.clone());
        let call = Arc::new(call.map_err(|source| VhostError::Host { path: disk.path().into(), source })?);
        disk.ask(&connection, "SET_VRING_CALL", |f| f.set_vring_call(n, &call.choose()))?;
        disk.ask(&connection, "SET_VRING_ENABLE", |f| f.set_vring_enable(n, true))?;
        // The requests above have no reply; this one has, and shows that the backend took them.
        disk.ask(&connection, "GET_FEATURES", |f| f.get_features())?;
        connection.watchdog.add(call.clone(), connection.frontend.clone());
        connection.running.fetch_add(1, Ordering::Relaxed);
        // Whatever the driver made available before: the backend looks when it is kicked.
        let _ = setup.kick.write(1);
        Ok((connection, call))
    }
}

impl QueueLoop for VhostQueue {
    fn attach(&self, setup: QueueSetup) -> Result<Box<dyn RunningQueue>, DataplaneError> {
        // Only the check that the rings are in RAM.
        Ring::new(setup.memory.clone(), setup.layout)?;
        let (connection, call) =
            self.start(&setup).map_err(|error| DataplaneError::Remote(error.to_string()))?;
        Ok(Box::new(Running { disk: self.disk.clone(), connection, call, index: self.index, setup }))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A queue that the backend runs.
struct Running {
    disk: Arc<VhostDisk>,
    connection: Arc<Connection>,
    call: Arc<Call>,
    index: usize,
    /// Guest RAM and eventfds live as long as the backend may use them.
    setup: QueueSetup,
}

impl RunningQueue for Running {
    fn detach(self: Box<Self>) -> Option<Box<dyn Backend>> {
        self.connection.watchdog.remove(&self.call);
        // Replied to when all requests in flight are done; a backend that is gone has none.
        let stopped = self.disk.ask(&self.connection, "GET_VRING_BASE", |f| f.get_vring_base(self.index));
        if let Err(error) = stopped
            && !self.connection.watchdog.is_dead()
        {
            log::warn(&self.setup.name, format_args!("{error}"));
        }
        self.connection.running.fetch_sub(1, Ordering::Relaxed);
        Some(self.setup.backend)
    }

    fn interrupt_changed(&self) {
        self.connection.watchdog.wake();
    }
}

/// In the place of a backend of ours, for a queue that another process runs.
pub struct NoBackend;

impl Backend for NoBackend {
    fn start(&mut self, _: u64, _: Request, _: &mut dyn Submitter) -> Outcome {
        Outcome::Done(Err(std::io::Error::from_raw_os_error(libc::ENXIO)))
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        Outcome::Done(Err(std::io::Error::from_raw_os_error(libc::ENXIO)))
    }
}
