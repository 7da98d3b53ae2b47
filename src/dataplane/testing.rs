//! A small guest driver with one queue in a small RAM, for the tests of this room.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::backend::{Backend, Op, Outcome, Request, Submitter};
use crate::kvm::testing::FakeVm;
use crate::kvm::{Routes, Vector};

pub const SIZE: u16 = 16;
pub const RAM: u64 = 0x10_0000;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADERS: u64 = 0x4000;
pub const DATA: u64 = 0x8000;
/// A status byte that no device writes.
const UNTOUCHED: u8 = 0xee;

pub struct Driver {
    pub vm: Arc<FakeVm>,
    pub memory: Arc<GuestMemoryMmap>,
    pub interrupts: Arc<DeviceInterrupts>,
    pub interrupt: Interrupt,
    pub kick: Arc<EventFd>,
    pub broken: Arc<AtomicBool>,
    pub counters: Arc<QueueCounters>,
}

impl Driver {
    /// Creates one queue with one vector. The vector is masked, so that its eventfd counts the interrupts.
    pub fn new(path: CompletePath) -> Driver {
        let vm = FakeVm::new();
        let routes = Arc::new(Routes::new(vm.clone(), 4096));
        let vector = Arc::new(Vector::new(vm.clone(), routes, path != CompletePath::SignalMsi).unwrap());
        let interrupts = DeviceInterrupts::new(vec![vector], None, path);
        interrupts.configure(true, false);
        let interrupt = interrupts.queue_interrupt();
        interrupt.set_vector(0);
        Driver {
            vm,
            memory: Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap()),
            interrupts,
            interrupt,
            kick: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            broken: Arc::default(),
            counters: Arc::default(),
        }
    }

    pub fn block() -> BlockParams {
        BlockParams {
            serial: *b"serial-of-twenty-byt",
            max_discard_sectors: 100,
            max_write_zeroes_sectors: 100,
            ..BlockParams::new(1000)
        }
    }

    pub fn setup(&self, backend: impl Backend + 'static) -> QueueSetup {
        let broken = self.broken.clone();
        QueueSetup {
            name: "test queue".into(),
            layout: QueueLayout::split(SIZE, DESC, AVAIL, USED),
            features: 0,
            memory: self.memory.clone(),
            kick: self.kick.clone(),
            backend: Box::new(backend),
            interrupt: self.interrupt.clone(),
            moderation: ModerationSwitch::new(Moderation::Off),
            block: Arc::new(Driver::block()),
            counters: self.counters.clone(),
            broken: Arc::new(move || broken.store(true, std::sync::atomic::Ordering::SeqCst)),
        }
    }

    pub fn write<T: vm_memory::ByteValued>(&self, addr: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(addr)).unwrap();
    }

    fn word(&self, addr: u64) -> u16 {
        self.memory.read_obj(GuestAddress(addr)).unwrap()
    }

    /// Makes a request of one 512-byte data buffer available in descriptors `3 * n` to `3 * n + 2`; n below 5.
    pub fn offer(&self, n: u16, kind: u32, sector: u64) {
        let head = 3 * n;
        let header = HEADERS + 32 * u64::from(n);
        self.write(header, u64::from(kind));
        self.write(header + 8, sector);
        self.write(header + 16, UNTOUCHED);
        let data_flags = if kind == 1 { 1 } else { 3 };
        let data = DATA + 512 * u64::from(n);
        self.write(DESC + 16 * u64::from(head), Descriptor::new(header, 16, 1, head + 1));
        self.write(DESC + 16 * u64::from(head + 1), Descriptor::new(data, 512, data_flags, head + 2));
        self.write(DESC + 16 * u64::from(head + 2), Descriptor::new(header + 16, 1, 2, 0));
        self.offer_head(head);
    }

    pub fn offer_head(&self, head: u16) {
        let index = self.word(AVAIL + 2);
        self.write(AVAIL + 4 + 2 * u64::from(index % SIZE), head);
        self.write(AVAIL + 2, index.wrapping_add(1));
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    pub fn used_index(&self) -> u16 {
        self.word(USED + 2)
    }

    pub fn status(&self, n: u16) -> Option<u8> {
        let status: u8 = self.memory.read_obj(GuestAddress(HEADERS + 32 * u64::from(n) + 16)).unwrap();
        (status != UNTOUCHED).then_some(status)
    }

    /// Waits for an interrupt and counts those since the last call.
    pub fn interrupts(&self) -> u64 {
        let event = self.interrupts.vectors()[0].event();
        let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd. The deadline only ends a test that has already failed.
        let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
        assert_eq!(ready, 1, "no interrupt within 10 s");
        event.read().unwrap()
    }
}

/// A backend that completes at once. Flushes fail, so that tests have an error.
pub struct Instant;

impl Backend for Instant {
    fn start(&mut self, _: u64, request: Request, _: &mut dyn Submitter) -> Outcome {
        Outcome::Done(match request.op {
            Op::Flush => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            Op::Discard => Err(std::io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            _ => Ok(()),
        })
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        unreachable!("it never says Pending")
    }
}

/// A backend that completes after the thread's io_uring has run two no-ops, like a short transfer in two steps.
#[derive(Default)]
pub struct TwoSteps {
    second: std::collections::HashSet<u64>,
}

impl Backend for TwoSteps {
    fn start(&mut self, token: u64, _: Request, submitter: &mut dyn Submitter) -> Outcome {
        // SAFETY: a no-op points to nothing.
        match unsafe { submitter.push(token, io_uring::opcode::Nop::new().build()) } {
            Ok(()) => Outcome::Pending,
            Err(error) => Outcome::Done(Err(error)),
        }
    }

    fn complete(&mut self, token: u64, _: i32, submitter: &mut dyn Submitter) -> Outcome {
        if self.second.remove(&token) {
            return Outcome::Done(Ok(()));
        }
        self.second.insert(token);
        // SAFETY: as above.
        match unsafe { submitter.push(token, io_uring::opcode::Nop::new().build()) } {
            Ok(()) => Outcome::Pending,
            Err(error) => Outcome::Done(Err(error)),
        }
    }
}
