use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use strum::Display;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::super::probe_abi::{FLOOR_WORD, GuestJob, flag, kind, poke, vector};
use super::error::{FloorError, SessionError};
use super::session::Session;
use crate::host::pin_to_cpu;
use crate::kvm::{
    Gsi, IoAddress, Ioeventfd, IoeventfdSpec, Match, MsiMessage, Vector, VectorState, VmIoctls,
};
use crate::machine::Ram;
use crate::machine::bus::BusDevice;

/// The address to which the guest stores: a page without a device.
const DOORBELL: u64 = 0xfed0_0000;
/// The same without an ioeventfd: the vCPU thread handles the exit.
const EXIT_DOORBELL: u64 = DOORBELL + 0x1000;
/// The vector of all floors: a plain one, like those of the disks.
pub(super) const FLOOR_VECTOR: u32 = vector::STAMPED - 1;
/// A pin that no device uses, for KVM_IRQ_LINE.
const FLOOR_PIN: Gsi = 10;

/// How the host waits for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Style {
    /// A blocking read of the eventfd.
    Blocking,
    /// Non-blocking reads of the eventfd in a loop.
    BusyPoll,
    /// Polls a word in guest memory. The guest does not store to the doorbell, like a driver whose device polls.
    MemoryPoll,
    /// The same, but the guest also stores to the doorbell: so the interrupt arrives while the vCPU is in the exit of its kick.
    #[strum(to_string = "memory-poll+kick")]
    MemoryPollKick,
    /// No eventfd: the vCPU's own thread handles the exit.
    Exit,
}

/// How the host interrupts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Answer {
    Irqfd,
    SignalMsi,
    IrqLine,
}

/// The means to interrupt the guest, shared by the floor's thread and the exit doorbell.
struct FloorInterrupt {
    vm: Arc<dyn VmIoctls>,
    vector: Vector,
    message: MsiMessage,
}

impl FloorInterrupt {
    fn deliver(&self, answer: Answer) {
        match answer {
            Answer::Irqfd => self.vector.signal_irqfd(),
            Answer::SignalMsi => _ = self.vm.signal_msi(self.message),
            Answer::IrqLine => {
                let _ = self.vm.irq_line(FLOOR_PIN, true);
                let _ = self.vm.irq_line(FLOOR_PIN, false);
            }
        }
    }
}

struct FloorJob {
    style: Style,
    answer: Answer,
    rounds: u32,
    /// The word in guest memory before the guest begins.
    word: u64,
}

/// TSC when the host saw a store, right before it interrupts.
pub(super) type Stamp = u64;

/// The floor: the bare ping-pong without virtio. No dataplane on this host can be faster.
pub(super) struct Floor {
    jobs: Option<Sender<FloorJob>>,
    timestamps: Receiver<Vec<Stamp>>,
    event: Arc<EventFd>,
    memory: Arc<Ram>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _doorbell: Ioeventfd,
}

struct ExitDoorbell(Arc<FloorInterrupt>);

impl BusDevice for ExitDoorbell {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) {
        self.0.deliver(Answer::Irqfd);
    }
}

impl Floor {
    /// Registers the doorbells in a running probe's VM and starts the answering thread, on `cpu` if given.
    ///
    /// # Errors
    /// The host refused an eventfd, or the guest did not program its IOAPIC.
    pub fn new(session: &mut Session, cpu: Option<usize>) -> Result<Floor, FloorError> {
        let parts = session.parts();
        let vector = Vector::new(parts.vm.clone(), parts.routes.clone(), true)?;
        let message = MsiMessage { address: 0xfee0_0000, data: FLOOR_VECTOR };
        Vector::apply(&[(&vector, VectorState { message, masked: false })])?;
        let interrupt = Arc::new(FloorInterrupt { vm: parts.vm.clone(), vector, message });
        parts
            .mmio
            .insert(EXIT_DOORBELL, 8, Arc::new(ExitDoorbell(interrupt.clone())))
            .map_err(|e| FloorError::Host(e.to_string()))?;
        // Blocking, unlike the dataplane's eventfds, so that one read is the whole wait.
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(FloorError::Host(std::io::Error::last_os_error().to_string()));
        }
        // SAFETY: just opened; nothing else owns it.
        let event = Arc::new(unsafe { EventFd::from_raw_fd(fd) });
        let spec = IoeventfdSpec { address: IoAddress::Mmio(DOORBELL), matching: Match::Length(2) };
        let doorbell = Ioeventfd::new(parts.vm.clone(), spec, event.clone())?;

        let (jobs, received) = bounded::<FloorJob>(1);
        let (answers, timestamps) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let memory = parts.memory.clone();
        let worker =
            Worker { event: event.clone(), memory: parts.memory.clone(), interrupt, stop: stop.clone() };
        let body = move || {
            if let Some(cpu) = cpu {
                pin_to_cpu(cpu);
            }
            for job in received {
                let _ = answers.send(worker.answer(&job));
            }
        };
        let thread = std::thread::Builder::new()
            .name("floor".into())
            .spawn(body)
            .map_err(|e| FloorError::Host(e.to_string()))?;
        route_pin(session)?;
        Ok(Floor {
            jobs: Some(jobs),
            timestamps,
            event,
            memory,
            stop,
            thread: Some(thread),
            _doorbell: doorbell,
        })
    }

    /// Prepares a block of `rounds` round trips and returns the guest's job for it; [`Floor::end`] returns the timestamps.
    pub fn begin(&self, style: Style, answer: Answer, rounds: u32) -> GuestJob {
        let address = if style == Style::Exit { EXIT_DOORBELL } else { DOORBELL };
        if style != Style::Exit
            && let Some(jobs) = &self.jobs
        {
            // The guest is idle, so no kick can arrive. Drain the kicks that memory polling did not read.
            set_blocking(&self.event, false);
            let _ = self.event.read();
            set_blocking(&self.event, style == Style::Blocking);
            let _ = jobs.send(FloorJob { style, answer, rounds, word: word(&self.memory) });
        }
        let flags = if style == Style::MemoryPoll { flag::NO_STORE } else { 0 };
        let (vector, requests) = (FLOOR_VECTOR, rounds);
        GuestJob { kind: kind::FLOOR, address, vector, requests, width: 2, flags, ..GuestJob::default() }
    }

    /// The host's timestamps of the last block.
    pub fn end(&self, style: Style) -> Vec<Stamp> {
        if style == Style::Exit { Vec::new() } else { self.timestamps.recv().unwrap_or_default() }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.jobs = None;
        let _ = self.event.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    event: Arc<EventFd>,
    memory: Arc<Ram>,
    interrupt: Arc<FloorInterrupt>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn answer(&self, job: &FloorJob) -> Vec<Stamp> {
        let mut timestamps = Vec::with_capacity(job.rounds as usize);
        let mut last = job.word;
        while timestamps.len() < job.rounds as usize && !self.stop.load(Ordering::Relaxed) {
            match job.style {
                Style::MemoryPoll | Style::MemoryPollKick => {
                    let now = word(&self.memory);
                    if now == last {
                        std::hint::spin_loop();
                        continue;
                    }
                    last = now;
                }
                Style::Blocking | Style::BusyPoll | Style::Exit => {
                    if self.event.read().is_err() {
                        continue;
                    }
                }
            }
            timestamps.push(tsc());
            self.interrupt.deliver(job.answer);
        }
        timestamps
    }
}

fn word(memory: &Ram) -> u64 {
    memory.load(GuestAddress(FLOOR_WORD), Ordering::Acquire).unwrap_or(0)
}

fn set_blocking(event: &EventFd, blocking: bool) {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: changes the flags of a descriptor that is ours.
    unsafe { libc::fcntl(event.as_raw_fd(), libc::F_SETFL, flags) };
}

/// The time-stamp counter; equal to the guest's if KVM gives it no offset.
pub(super) fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU that runs KVM has it, and Linux lets user space read it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Programs the IOAPIC pin of the KVM_IRQ_LINE floor: edge, fixed, to CPU 0 (82093AA, 3.2.4).
fn route_pin(session: &mut Session) -> Result<(), SessionError> {
    const SELECT: u64 = 0xfec0_0000;
    const WINDOW: u64 = SELECT + 0x10;
    let low = 0x10 + 2 * FLOOR_PIN;
    for (register, value) in [(low + 1, 0), (low, FLOOR_VECTOR)] {
        for (address, value) in [(SELECT, register), (WINDOW, value)] {
            let store = GuestJob {
                kind: kind::POKE,
                op: poke::STORE,
                width: 4,
                address,
                value: value.into(),
                requests: 1,
                ..GuestJob::default()
            };
            session.run(store)?;
        }
    }
    Ok(())
}

/// Whether the guest's time-stamp counter equals ours: its reading lies between two of ours.
pub(super) fn counters_agree(session: &mut Session) -> Result<bool, SessionError> {
    let before = tsc();
    let outcome = session.run(Session::nop())?;
    let after = tsc();
    Ok((before..after).contains(&outcome.tsc_begin))
}
