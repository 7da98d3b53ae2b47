use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use super::super::PROBE_ELF;
use super::super::probe_abi::{
    Control, DeviceInfo, GuestJob, MAGIC, Outcome, Sample, VERSION, idle, kind, mode, state, vector,
};
use super::error::SessionError;
use super::mailbox::{Mailbox, completed};
use crate::dataplane::LoopHandle;
use crate::host::sandbox::SandboxMode;
use crate::host::thread;
use crate::kvm::{MsiMessage, Routes, VmIoctls};
use crate::machine::bus::Bus;
use crate::machine::vcpu::ExitCounters;
use crate::machine::{ExitLatch, ExitReason, Kernel, MachineConfig, Ram, layout};
use crate::virtio::VirtioBlk;
use crate::vm::{DiskConfig, SandboxConfig, ThreadConfig, Vm, VmConfig};

/// The configuration of the probe's VM.
#[derive(Clone, Debug, Default)]
pub struct SessionConfig {
    /// Disks, in the order of the probe's device indices.
    pub disks: Vec<DiskConfig>,
    /// I/O threads.
    pub threads: Vec<ThreadConfig>,
    /// vCPUs, 1 to 4.
    pub cpus: u8,
    /// The host CPU of each vCPU; empty: not pinned.
    pub vcpu_pins: Vec<usize>,
    /// Whether the VM's threads are confined. The thread that measures never is.
    pub sandbox: SandboxMode,
}

/// A running probe.
pub struct Session {
    parts: SessionParts,
    exit: ExitLatch,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<String>,
    mailbox: Mailbox,
    devices: Vec<DeviceInfo>,
}

/// The parts that the VM's thread hands out before it runs the vCPUs.
pub struct SessionParts {
    /// Guest RAM.
    pub memory: Arc<Ram>,
    /// The VM-wide ioctls.
    pub vm: Arc<dyn VmIoctls>,
    /// The GSI table.
    pub routes: Arc<Routes>,
    /// The MMIO bus.
    pub mmio: Arc<Bus>,
    /// The disks.
    pub disks: Vec<Arc<VirtioBlk>>,
    /// The I/O threads in use.
    pub loops: Vec<LoopHandle>,
    /// Exits of each vCPU.
    pub exits: Vec<Arc<ExitCounters>>,
}

const BOOT_SECONDS: u64 = 30;
const BLOCK_SECONDS: u64 = 60;

impl Session {
    /// Boots the probe and waits until it accepts blocks.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn start(config: SessionConfig) -> Result<Session, SessionError> {
        let cpus = config.cpus;
        let config = VmConfig {
            machine: MachineConfig {
                cpus,
                vcpu_pins: config.vcpu_pins.into_iter().map(Some).collect(),
                host_tsc: true,
                ..MachineConfig::new(Kernel::Image(PROBE_ELF.into()))
            },
            disks: config.disks,
            threads: config.threads,
            sandbox: SandboxConfig { mode: config.sandbox, files: Vec::new() },
        };
        let (sender, started) = bounded(1);
        let (ending, ended) = bounded(1);
        let body = move || {
            thread::leave_group();
            match Vm::new(config) {
                Err(error) => _ = sender.send(Err(error)),
                Ok(mut vm) => {
                    let (parts, exit) = (SessionParts::of(&vm), vm.machine().exit_latch());
                    parts.write_control(cpus);
                    let _ = sender.send(Ok((parts, exit)));
                    let end = match vm.run() {
                        Ok(reason) => reason.why().map_or_else(|| format!("{reason:?}"), String::from),
                        Err(error) => error.to_string(),
                    };
                    let _ = ending.send(end);
                }
            }
        };
        let builder = std::thread::Builder::new().name("probe".into());
        let thread = builder.spawn(body).map_err(SessionError::Thread)?;
        let (parts, exit) = started.recv().map_err(|_| SessionError::Ended("its thread died".into()))??;
        let mailbox = Mailbox::new(parts.memory.clone());
        let mut session = Session { parts, exit, thread: Some(thread), ended, mailbox, devices: Vec::new() };
        session.wait(BOOT_SECONDS, |mailbox| {
            let control = mailbox.control();
            control.state == state::READY && control.cpus_up.count_ones() >= u32::from(cpus.max(1))
        })?;
        session.devices = session.mailbox.devices();
        Ok(session)
    }

    /// The VM's parts.
    pub fn parts(&self) -> &SessionParts {
        &self.parts
    }

    /// The devices as the guest found them.
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.devices
    }

    /// The guest's state.
    pub fn control(&self) -> Control {
        self.mailbox.control()
    }

    /// Changes how the guest's CPUs wait between blocks: one of [`idle`]. By default they spin.
    pub fn set_idle(&self, idle: u32) {
        self.mailbox.set_idle(idle);
    }

    /// Runs one block on CPU 0 and waits for its end.
    ///
    /// # Errors
    /// The guest died, did not answer in time, or did not complete the block.
    pub fn run(&mut self, job: GuestJob) -> Result<Outcome, SessionError> {
        self.run_on(&[(0, job)]).map(|mut outcomes| outcomes.remove(0))
    }

    /// Runs one block on each of several CPUs at the same time.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_on(&mut self, jobs: &[(usize, GuestJob)]) -> Result<Vec<Outcome>, SessionError> {
        let outcomes = self.try_on(jobs)?;
        outcomes.into_iter().zip(jobs).map(|(outcome, (_, job))| completed(outcome, job)).collect()
    }

    /// As [`Session::run_on`], but a block that fails is an outcome, not an error.
    ///
    /// # Errors
    /// The guest died or did not answer in time.
    pub fn try_on(&mut self, jobs: &[(usize, GuestJob)]) -> Result<Vec<Outcome>, SessionError> {
        let seq = self.mailbox.give(jobs);
        if self.control().idle == idle::HALT {
            for &(cpu, _) in jobs {
                let message = MsiMessage { address: 0xfee0_0000 | (cpu as u64) << 12, data: vector::WAKE };
                // If KVM cannot deliver it, the CPU is awake, or the wait below ends with an error.
                let _ = self.parts.vm.signal_msi(message);
            }
        }
        self.wait(BLOCK_SECONDS, |mailbox| jobs.iter().all(|&(cpu, _)| mailbox.is_done(cpu, seq)))?;
        Ok(jobs.iter().map(|&(cpu, _)| self.outcome(cpu)).collect())
    }

    /// The outcome of a CPU's block, also while it runs.
    pub fn outcome(&self, cpu: usize) -> Outcome {
        self.mailbox.outcome(cpu)
    }

    /// The samples of a CPU's last block.
    pub fn samples(&self, cpu: usize, outcome: &Outcome) -> Vec<Sample> {
        self.mailbox.samples(cpu, outcome)
    }

    fn wait(&self, seconds: u64, done: impl Fn(&Mailbox) -> bool) -> Result<(), SessionError> {
        self.mailbox.wait(seconds, || self.ended.try_recv().ok(), done)
    }

    /// Stops the VM and waits for its thread.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.exit.request(ExitReason::Stopped);
            let _ = thread.join();
        }
    }

    /// A block that only reads the clock.
    pub fn nop() -> GuestJob {
        GuestJob { kind: kind::NOP, ..GuestJob::default() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

impl SessionParts {
    fn of(vm: &Vm) -> SessionParts {
        let machine = vm.machine();
        SessionParts {
            memory: machine.memory(),
            vm: machine.vm(),
            routes: machine.routes(),
            mmio: machine.mmio(),
            disks: vm.disks().to_vec(),
            loops: vm.io_loops(),
            exits: machine.exit_counters().to_vec(),
        }
    }

    fn write_control(&self, cpus: u8) {
        let control = Control {
            magic: MAGIC,
            version: VERSION,
            mode: mode::HOST,
            start_cpus: cpus.into(),
            idle: idle::SPIN,
            ecam: layout::ECAM_START,
            ..Control::default()
        };
        Mailbox::new(self.memory.clone()).write_control(&control);
    }
}
