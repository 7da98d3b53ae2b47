//! Shared by the tests of this room: a device on a fake VM, and a driver that finds the registers by capabilities.

use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::backend::{Backend, Geometry, Op, Outcome, Request, Submitter};
use crate::dataplane::{CompletePath, DataplaneError, QueueLoop, QueueSetup, Ring, RunningQueue};
use crate::kvm::testing::FakeVm;
use crate::kvm::{Line, Routes};
use crate::pci::{PciDevice, Space, Window, capabilities};

use super::{BlkConfig, NotifyPath, VirtioBlk};

/// Completes everything at once.
pub struct Instant;

impl Backend for Instant {
    fn start(&mut self, _: u64, request: Request, _: &mut dyn Submitter) -> Outcome {
        assert_ne!(request.op, Op::Flush, "no test here flushes");
        Outcome::Done(Ok(()))
    }

    fn complete(&mut self, token: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        unreachable!("token {token} was never pending")
    }
}

type Hook = Box<dyn Fn() + Send + Sync>;
type Broken = Arc<dyn Fn() + Send + Sync>;

/// A loop that runs nothing, but holds queues as a real loop does.
#[derive(Default)]
pub struct FakeLoop {
    /// The queues that run, by name, and their `broken` callbacks.
    pub running: Mutex<Vec<(String, Broken)>>,
    /// Called while a queue is being attached or detached, on another thread, as a loop or a control socket would.
    pub meanwhile: Mutex<Option<Hook>>,
    pub log: Mutex<Vec<String>>,
}

struct FakeQueue(Arc<FakeLoop>, QueueSetup);

impl FakeLoop {
    fn elsewhere(&self) {
        let hook = self.meanwhile.lock().unwrap();
        if let Some(hook) = &*hook {
            std::thread::scope(|scope| _ = scope.spawn(hook));
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.running.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The handle that a device holds.
pub struct FakeHandle(pub Arc<FakeLoop>);

impl QueueLoop for FakeHandle {
    fn attach(&self, setup: QueueSetup) -> Result<Box<dyn RunningQueue>, DataplaneError> {
        self.0.elsewhere();
        Ring::new(setup.memory.clone(), setup.layout)?;
        self.0.log.lock().unwrap().push(format!("attach {}", setup.name));
        self.0.running.lock().unwrap().push((setup.name.clone(), setup.broken.clone()));
        Ok(Box::new(FakeQueue(self.0.clone(), setup)))
    }

    fn name(&self) -> &str {
        "fake"
    }
}

impl RunningQueue for FakeQueue {
    fn detach(self: Box<Self>) -> Option<Box<dyn Backend>> {
        self.0.elsewhere();
        self.0.log.lock().unwrap().push(format!("detach {}", self.1.name));
        self.0.running.lock().unwrap().retain(|(name, _)| *name != self.1.name);
        Some(self.1.backend)
    }
}

pub const BAR: u64 = 0xd000_0000;
pub const PORT: u64 = 0xc000;
/// The GSI of the device's interrupt pin.
pub const INTX: u32 = 16;
/// Every feature that a test's driver may accept.
pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const NOTIFICATION_DATA: u64 = 1 << 38;
pub const RING_RESET: u64 = 1 << 40;
pub const FLUSH: u64 = 1 << 9;
pub const CONFIG_WCE: u64 = 1 << 11;

/// A structure that a vendor-specific capability points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: u8,
    pub at: u16,
    pub bar: u8,
    pub offset: u64,
    pub len: u64,
}

pub struct Rig {
    pub vm: Arc<FakeVm>,
    pub fake: Arc<FakeLoop>,
    pub memory: Arc<GuestMemoryMmap>,
    pub device: Arc<VirtioBlk>,
    pub routes: Arc<Routes>,
    mapped: Mutex<Vec<Window>>,
}

pub fn blk_config() -> BlkConfig {
    BlkConfig {
        name: "disk0".into(),
        capacity: 2048,
        readonly: false,
        discard: true,
        geometry: Geometry {
            logical_block: 512,
            physical_block: 4096,
            alignment_offset: 0,
            minimum_io: 4096,
            optimal_io: 0,
            discard_granularity: 4096,
        },
        serial: "lab0".into(),
        queues: 2,
        queue_size: 256,
        notify: NotifyPath::FastMmio,
        complete: CompletePath::Auto,
        event_idx: true,
        notification_data: false,
        moderation: crate::dataplane::Moderation::Off,
        remote: None,
    }
}

impl Rig {
    /// A device with two queues at [`BAR`] (and [`PORT`]), decoded, with its configuration changed by `change`.
    pub fn new(change: impl FnOnce(&mut BlkConfig)) -> Rig {
        let fake = Arc::new(FakeLoop::default());
        Rig::with_loops(change, vec![Arc::new(FakeHandle(fake.clone()))], fake)
    }

    pub fn with_loops(
        change: impl FnOnce(&mut BlkConfig),
        loops: Vec<Arc<dyn QueueLoop>>,
        fake: Arc<FakeLoop>,
    ) -> Rig {
        let mut config = blk_config();
        change(&mut config);
        let vm = FakeVm::new();
        let routes = Arc::new(Routes::new(vm.clone(), 4096));
        let ranges = [(GuestAddress(0), 1 << 20)];
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let backends = Box::new(|_| Ok(Box::new(Instant) as Box<dyn Backend>));
        let line = Some(Arc::new(Line::new(vm.clone(), INTX)));
        let device =
            VirtioBlk::new(config, vm.clone(), routes.clone(), memory.clone(), loops, backends, line)
                .unwrap();
        let rig = Rig { vm, fake, memory, device, routes, mapped: Mutex::default() };
        rig.place(BAR);
        rig.config_write(0x18, &(PORT as u32).to_le_bytes());
        rig.config_write(4, &[7, 0]);
        rig
    }

    /// Writes config space as the host bridge does: windows that changed are unmapped and mapped.
    pub fn config_write(&self, offset: u16, data: &[u8]) {
        self.device.config_write(offset, data);
        let (windows, mut mapped) = (self.device.windows(), self.mapped.lock().unwrap());
        mapped.retain(|window| {
            let keep = windows.contains(window);
            if !keep {
                self.device.bar_unmapped(*window);
            }
            keep
        });
        for window in windows {
            if !mapped.contains(&window) {
                mapped.push(window);
                self.device.bar_mapped(window);
            }
        }
    }

    /// Moves BAR 0.
    pub fn place(&self, base: u64) {
        self.config_write(0x10, &(base as u32).to_le_bytes());
        self.config_write(0x14, &((base >> 32) as u32).to_le_bytes());
    }

    pub fn window(&self, space: Space) -> Option<Window> {
        self.mapped.lock().unwrap().iter().copied().find(|window| window.space == space)
    }

    pub fn config_u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.device.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn capabilities(&self) -> Vec<(u8, u8)> {
        capabilities(|at| {
            let mut byte = [0];
            self.device.config_read(at.into(), &mut byte);
            byte[0]
        })
    }

    /// The structures, in list order.
    pub fn structures(&self) -> Vec<Found> {
        let vendor = self.capabilities().into_iter().filter(|&(id, _)| id == 9);
        vendor
            .map(|(_, at)| {
                let at = u16::from(at);
                Found {
                    kind: (self.config_u32(at) >> 24) as u8,
                    at,
                    bar: self.config_u32(at + 4) as u8,
                    offset: self.config_u32(at + 8).into(),
                    len: self.config_u32(at + 12).into(),
                }
            })
            .collect()
    }

    pub fn structure(&self, kind: u8) -> Found {
        self.structures().into_iter().find(|found| found.kind == kind).unwrap()
    }

    /// Reads a field of structure `kind`.
    pub fn get(&self, kind: u8, at: u64, len: usize) -> u64 {
        let found = self.structure(kind);
        let mut data = [0; 8];
        self.device.bar_read(found.bar, found.offset + at, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    pub fn put(&self, kind: u8, at: u64, value: u64, len: usize) {
        let found = self.structure(kind);
        self.device.bar_write(found.bar, found.offset + at, &value.to_le_bytes()[..len]);
    }

    pub fn status(&self) -> u8 {
        self.get(1, 0x14, 1) as u8
    }

    pub fn set_status(&self, status: u8) {
        self.put(1, 0x14, status.into(), 1);
    }

    /// Initializes the device up to FEATURES_OK; returns whether the device accepted the features.
    pub fn negotiate(&self, features: u64) -> bool {
        self.set_status(1);
        self.set_status(3);
        for (select, word) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.put(1, 0x08, select, 4);
            self.put(1, 0x0c, word, 4);
        }
        self.set_status(11);
        self.status() & 8 != 0
    }

    /// Gives queue `n` valid ring addresses and MSI-X vector `n`, and enables it.
    pub fn enable_queue(&self, n: u64) {
        let base = 0x1_0000 * (n + 1);
        self.put(1, 0x16, n, 2);
        self.put(1, 0x1a, n, 2);
        self.put(1, 0x20, base, 8);
        self.put(1, 0x28, base + 0x4000, 8);
        self.put(1, 0x30, base + 0x8000, 8);
        self.put(1, 0x1c, 1, 2);
    }

    /// Initializes the device as a driver does, with two queues, up to DRIVER_OK.
    pub fn start(&self) {
        assert!(self.negotiate(VERSION_1 | EVENT_IDX));
        self.enable_queue(0);
        self.enable_queue(1);
        self.set_status(15);
        assert_eq!(self.status(), 15);
    }

    /// Turns MSI-X on with every vector unmasked; vector n's data is 0x40 + n.
    pub fn start_msix(&self) {
        let (_, at) = self.capabilities().into_iter().find(|&(id, _)| id == 0x11).unwrap();
        let table = self.config_u32(u16::from(at) + 4);
        for n in 0..3 {
            for (word, value) in [0xfee0_0000, 0, 0x40 + n, 0].into_iter().enumerate() {
                let offset = u64::from(table & !7) + u64::from(n) * 16 + word as u64 * 4;
                self.device.bar_write(table as u8 & 7, offset, &u32::to_le_bytes(value));
            }
        }
        self.config_write(u16::from(at) + 2, &[0, 0x80]);
    }

    /// The address of queue `n`'s notify register, from the notify capability.
    pub fn notify(&self, n: u64) -> (u8, u64) {
        let found = self.structure(2);
        let stride = u64::from(self.config_u32(found.at + 16));
        self.put(1, 0x16, n, 2);
        (found.bar, found.offset + self.get(1, 0x1e, 2) * stride)
    }

    /// A kick that comes by exit.
    pub fn kick(&self, n: u64) {
        let (bar, offset) = self.notify(n);
        self.device.bar_write(bar, offset, &(n as u16).to_le_bytes());
    }
}
