use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use super::super::PROBE_ELF;
use super::super::probe_abi::{
    Control, DeviceInfo, GuestJob, MAGIC, Outcome, Sample, VERSION, idle, kind, mode, state, vector,
};
use super::mailbox::{Mailbox, completed};
use crate::dataplane::LoopHandle;
use crate::kvm::{MsiMessage, Routes, VmIoctls};
use crate::machine::bus::Bus;
use crate::machine::vcpu::ExitCounters;
use crate::machine::{Console, ExitLatch, ExitReason, Kernel, MachineConfig, Ram, layout};
use crate::virtio::VirtioBlk;
use crate::vm::DiskConfig;
use crate::vm::{ThreadConfig, Vm, VmConfig, VmError};

/// Why a probe could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine could not be made.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// No thread to be had.
    #[error("no thread for the probe's machine: {0}")]
    Thread(#[source] std::io::Error),
    /// The machine stopped by itself.
    #[error("the probe guest ended: {0}")]
    Ended(String),
    /// The guest does not answer.
    #[error("the probe guest gave no answer within {0} s; is the host overloaded?")]
    Silent(u64),
    /// The guest stopped with an exception.
    #[error("the probe guest stopped: {0}")]
    Trap(String),
    /// A block went wrong.
    #[error(
        "the probe's block failed with status {status} (detail {detail}) after {completed} of {requests}"
    )]
    Block {
        /// One of [`status`].
        status: u32,
        /// See there.
        detail: u64,
        /// Requests completed.
        completed: u32,
        /// Requests asked for.
        requests: u32,
    },
}

/// What machine the probe gets.
#[derive(Clone, Debug, Default)]
pub struct SessionConfig {
    /// Disks, in the order of the probe's device indices.
    pub disks: Vec<DiskConfig>,
    /// I/O threads.
    pub threads: Vec<ThreadConfig>,
    /// vCPUs, 1 to 4.
    pub cpus: u8,
    /// Host CPUs that the vCPUs stay on; empty: anywhere.
    pub vcpu_pins: Vec<usize>,
}

/// A running probe.
pub struct Session {
    parts: Parts,
    exit: ExitLatch,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<String>,
    mailbox: Mailbox,
    devices: Vec<DeviceInfo>,
}

/// What the machine's thread hands out before it runs.
pub struct Parts {
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
    /// Boots the probe and waits until it takes blocks.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn start(config: SessionConfig) -> Result<Session, SessionError> {
        let cpus = config.cpus;
        let assembly = VmConfig {
            machine: MachineConfig {
                kernel: Kernel::Image(PROBE_ELF.into()),
                initrd: None,
                cmdline: String::new(),
                cpus,
                memory: layout::RAM_MIN,
                console: Console::Off,
                vcpu_pins: config.vcpu_pins,
                host_tsc: true,
            },
            disks: config.disks,
            threads: config.threads,
        };
        let (sender, started) = bounded(1);
        let (ending, ended) = bounded(1);
        let body = move || match Vm::new(assembly) {
            Err(error) => _ = sender.send(Err(error)),
            Ok(mut assembly) => {
                let (parts, exit) = (Parts::of(&assembly), assembly.machine().exit_latch());
                parts.write_control(cpus);
                let _ = sender.send(Ok((parts, exit)));
                let end = match assembly.run() {
                    Ok(reason) => reason.why().map_or_else(|| format!("{reason:?}"), String::from),
                    Err(error) => error.to_string(),
                };
                let _ = ending.send(end);
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

    /// What it is made of.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The devices as the guest found them.
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.devices
    }

    /// What the guest says of itself.
    pub fn control(&self) -> Control {
        self.mailbox.control()
    }

    /// Changes how the guest's CPUs wait between blocks: one of [`idle`]. They spin unless told otherwise.
    pub fn set_idle(&self, idle: u32) {
        self.mailbox.set_idle(idle);
    }

    /// Runs one block on CPU 0 and waits for its end.
    ///
    /// # Errors
    /// The guest died, fell silent, or did not complete the block.
    pub fn run(&mut self, plan: GuestJob) -> Result<Outcome, SessionError> {
        self.run_on(&[(0, plan)]).map(|mut outcomes| outcomes.remove(0))
    }

    /// Runs one block on each of several CPUs at the same time.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_on(&mut self, plans: &[(usize, GuestJob)]) -> Result<Vec<Outcome>, SessionError> {
        let outcomes = self.try_on(plans)?;
        outcomes.into_iter().zip(plans).map(|(outcome, (_, plan))| completed(outcome, plan)).collect()
    }

    /// As [`Session::run_on`], but a block that fails is an outcome, not an error.
    ///
    /// # Errors
    /// The guest died or fell silent.
    pub fn try_on(&mut self, plans: &[(usize, GuestJob)]) -> Result<Vec<Outcome>, SessionError> {
        let seq = self.mailbox.give(plans);
        if self.control().idle == idle::HALT {
            for &(cpu, _) in plans {
                let message = MsiMessage { address: 0xfee0_0000 | (cpu as u64) << 12, data: vector::WAKE };
                // One that KVM did not deliver found the CPU awake, or the wait below ends with a sentence.
                let _ = self.parts.vm.signal_msi(message);
            }
        }
        self.wait(BLOCK_SECONDS, |mailbox| plans.iter().all(|&(cpu, _)| mailbox.is_done(cpu, seq)))?;
        Ok(plans.iter().map(|&(cpu, _)| self.outcome(cpu)).collect())
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

    /// Ends the guest and waits for its machine.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.exit.request(ExitReason::Stopped);
            let _ = thread.join();
        }
    }

    /// A block that does nothing, to take the time.
    pub fn nop() -> GuestJob {
        GuestJob { kind: kind::NOP, ..GuestJob::default() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

impl Parts {
    fn of(assembly: &Vm) -> Parts {
        let machine = assembly.machine();
        Parts {
            memory: machine.memory(),
            vm: machine.vm(),
            routes: machine.routes(),
            mmio: machine.mmio(),
            disks: assembly.disks().to_vec(),
            loops: assembly.io_loops(),
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
