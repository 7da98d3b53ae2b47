use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use super::VhostError;
use super::watchdog::Watchdog;
use crate::host::Locked;
use crate::host::thread::OnDeath;

/// Bytes of `virtio_blk_config` that are asked for (virtio 1.2, 5.2.4).
pub const CONFIG_LEN: usize = 60;

/// How long a backend may take for a reply.
const REPLY: Duration = Duration::from_secs(5);
/// How long it may take to complete the requests in flight of a queue that stops.
const DRAINED: Duration = Duration::from_secs(30);

/// A connection to the backend; replaced by a new one after the backend's death.
pub(super) struct Connection {
    pub frontend: Frontend,
    pub watchdog: Watchdog,
    /// Queues that the backend runs. Features and memory are sent before the first.
    pub running: AtomicUsize,
}

/// A disk whose queues a vhost-user backend runs.
pub struct VhostDisk {
    path: PathBuf,
    queues: u16,
    features: u64,
    config: [u8; CONFIG_LEN],
    connection: Mutex<Arc<Connection>>,
    on_death: OnDeath,
}

impl VhostDisk {
    /// Connects to the backend at `path` and asks what it offers, with `queues` queues. Waits at most some seconds for
    /// each reply. `on_death` is told if our own thread of the disk dies; the backend's death is told to the guest.
    ///
    /// # Errors
    /// No backend, or one that is not a disk, offers too few queues or does not keep to the protocol.
    pub fn connect(path: &Path, queues: u16, on_death: OnDeath) -> Result<Arc<VhostDisk>, VhostError> {
        let (connection, features, config) = open(path, queues, &on_death)?;
        let connection = Mutex::new(Arc::new(connection));
        Ok(Arc::new(VhostDisk { path: path.into(), queues, features, config, connection, on_death }))
    }

    /// The features that the backend offers.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The backend's `virtio_blk_config`.
    pub fn config(&self) -> [u8; CONFIG_LEN] {
        self.config
    }

    /// How many queues it runs.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The connection for a queue that starts: a new one if the backend died. Tells the backend first what all queues
    /// share: the features that the driver accepted, and guest RAM.
    pub(super) fn connection(
        &self,
        features: u64,
        memory: &GuestMemoryMmap,
    ) -> Result<Arc<Connection>, VhostError> {
        let mut current = self.connection.locked();
        if current.watchdog.is_dead() {
            let (connection, offered, _) = open(&self.path, self.queues, &self.on_death)?;
            let missing = features & !offered;
            // Bits below 24 are the device's own; the others are the transport's.
            if missing & 0xff_ffff != 0 {
                let lacks =
                    format!("came back without features that the driver uses: {:#x}", missing & 0xff_ffff);
                return Err(VhostError::Lacks { path: self.path.clone(), lacks });
            }
            *current = Arc::new(connection);
        }
        if current.running.load(Ordering::Relaxed) == 0 {
            let offered = self.features;
            let accepted = features & offered | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
            self.ask(&current, "SET_FEATURES", |f| f.set_features(accepted))?;
            let regions: Result<Vec<_>, _> =
                memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
            let regions = regions.map_err(|error| self.failed("SET_MEM_TABLE", &error))?;
            self.ask(&current, "SET_MEM_TABLE", |f| f.set_mem_table(&regions))?;
        }
        Ok(current.clone())
    }

    /// One request, with a limit on how long its reply may take.
    pub(super) fn ask<T>(
        &self,
        connection: &Connection,
        request: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, VhostError> {
        ask(&self.path, &mut connection.frontend.clone(), &connection.watchdog, request, call)
    }

    fn failed(&self, request: &'static str, error: &dyn std::fmt::Display) -> VhostError {
        VhostError::Request { path: self.path.clone(), request, why: error.to_string() }
    }
}

fn ask<T>(
    path: &Path,
    frontend: &mut Frontend,
    watchdog: &Watchdog,
    request: &'static str,
    call: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
) -> Result<T, VhostError> {
    // Only this one waits for the disk behind the backend.
    let late = watchdog.limit(if request == "GET_VRING_BASE" { DRAINED } else { REPLY });
    call(frontend).map_err(|error| {
        let why = if late.expired() { "no reply in time".into() } else { error.to_string() };
        VhostError::Request { path: path.into(), request, why }
    })
}

/// Connects and asks what the backend offers.
fn open(
    path: &Path,
    queues: u16,
    on_death: &OnDeath,
) -> Result<(Connection, u64, [u8; CONFIG_LEN]), VhostError> {
    let stream =
        UnixStream::connect(path).map_err(|source| VhostError::Connect { path: path.into(), source })?;
    let host = |source| VhostError::Host { path: path.into(), source };
    let watchdog =
        Watchdog::start(path, stream.try_clone().map_err(host)?, on_death.clone()).map_err(host)?;
    let mut frontend = Frontend::from_stream(stream, queues.into());
    let lacks = |lacks: String| VhostError::Lacks { path: path.into(), lacks };

    let features = ask(path, &mut frontend, &watchdog, "GET_FEATURES", |f| f.get_features())?;
    for (bit, name) in [
        (1 << VIRTIO_F_VERSION_1, "virtio 1.0 (VIRTIO_F_VERSION_1)"),
        (VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits(), "protocol features"),
    ] {
        if features & bit == 0 {
            return Err(lacks(format!("does not offer {name}")));
        }
    }
    ask(path, &mut frontend, &watchdog, "SET_OWNER", |f| f.set_owner())?;
    let protocol =
        ask(path, &mut frontend, &watchdog, "GET_PROTOCOL_FEATURES", |f| f.get_protocol_features())?;
    if !protocol.contains(VhostUserProtocolFeatures::CONFIG) {
        return Err(lacks(
            "does not offer its configuration (protocol feature CONFIG): it may not be a disk".into(),
        ));
    }
    let wanted = protocol & (VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ);
    ask(path, &mut frontend, &watchdog, "SET_PROTOCOL_FEATURES", |f| f.set_protocol_features(wanted))?;
    let most = if wanted.contains(VhostUserProtocolFeatures::MQ) {
        ask(path, &mut frontend, &watchdog, "GET_QUEUE_NUM", |f| f.get_queue_num())?
    } else {
        1
    };
    if most < queues.into() {
        return Err(lacks(format!(
            "has {most} queues, fewer than queues={queues}: give queues={most} at most"
        )));
    }
    let zeroes = [0; CONFIG_LEN];
    let get = |f: &mut Frontend| f.get_config(0, CONFIG_LEN as u32, VhostUserConfigFlags::WRITABLE, &zeroes);
    let (_, bytes) = ask(path, &mut frontend, &watchdog, "GET_CONFIG", get)?;
    let mut config = [0; CONFIG_LEN];
    let len = bytes.len().min(CONFIG_LEN);
    config[..len].copy_from_slice(&bytes[..len]);
    Ok((Connection { frontend, watchdog, running: AtomicUsize::new(0) }, features, config))
}
