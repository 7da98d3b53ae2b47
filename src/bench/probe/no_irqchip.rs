use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{CpuId, KVMIO, kvm_interrupt};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::GuestAddress;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::super::PROBE_ELF;
use super::super::Row;
use super::super::probe_abi::{Control, GuestJob, MAGIC, VERSION, idle, kind, mode, state, vector};
use super::config::FLOOR_JOB;
use super::error::SessionError;
use super::floor::Style;
use super::mailbox::{Mailbox, completed};
use super::row_stats::Block;
use crate::host::pin_to_cpu;
use crate::kvm::{KvmVm, MemoryRange, VmIoctls};
use crate::machine::boot::Boot;
use crate::machine::{CpuModel, Kernel, Ram, cpu_state, cpuid, create_vm, layout, open_kvm};
use crate::virtio::NotifyPath;

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// Where the guest stores. This VM has no device, so every store exits to us.
const DOORBELL: u64 = 0xfed0_0000;
/// The vector whose stub sends no EOI, because an EOI would be one more exit: this VM has no interrupt controller.
const VECTOR: u32 = vector::SPURIOUS;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The bare ping-pong in a VM without interrupt controllers: the store exits, and the vCPU's own thread answers with
/// KVM_INTERRUPT (KVM API 4.16). Between blocks it does not run.
pub(super) struct NoIrqchip {
    vcpu: VcpuFd,
    mailbox: Mailbox,
    pin: Option<usize>,
    _vm: Arc<VmFd>,
    _memory: Arc<Ram>,
}

impl NoIrqchip {
    /// Boots a probe in such a VM; its blocks run on host CPU `pin`, if given.
    ///
    /// # Errors
    /// Why this host cannot run it, as a clause.
    pub fn new(pin: Option<usize>) -> Result<NoIrqchip, String> {
        let text = |what: &'static str| move |e: kvm_ioctls::Error| format!("{what} failed: {e}");
        let kvm = open_kvm().map_err(|e| e.to_string())?;
        let vm = Arc::new(create_vm(&kvm).map_err(text("KVM_CREATE_VM"))?);
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(text("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.set_tss_address(layout::KVM_TSS as usize).map_err(text("KVM_SET_TSS_ADDR"))?;
        let ram = (GuestAddress(0), layout::RAM_MIN as usize);
        let memory = Arc::new(Ram::from_ranges(&[ram]).map_err(|e| e.to_string())?);
        let host =
            vm_memory::GuestMemoryBackend::get_host_address(&*memory, ram.0).map_err(|e| e.to_string())?;
        let range = MemoryRange { guest: 0, len: layout::RAM_MIN, host: host as u64 };
        // SAFETY: the mapping is as long as the slot, and dropped after the VM's last descriptor.
        unsafe { KvmVm::new(vm.clone()).set_memory_slot(0, range) }.map_err(|e| e.to_string())?;

        let (size, kernel) = (layout::RAM_MIN, &Kernel::Image(PROBE_ELF.into()));
        let entry = Boot { ram: &memory, size, kernel, initrd: None, cmdline: "" }.load();
        let entry = entry.map_err(|e| e.to_string())?;
        let vcpu = vm.create_vcpu(0).map_err(text("KVM_CREATE_VCPU"))?;
        let supported = cpuid::supported(&kvm).map_err(|e| e.to_string())?;
        let leaves = cpuid::for_vcpu(supported.as_slice(), 0, 1, CpuModel::Masked);
        let leaves = CpuId::from_entries(&leaves).map_err(|e| format!("{e:?}"))?;
        vcpu.set_cpuid2(&leaves).map_err(text("KVM_SET_CPUID2"))?;
        cpu_state::start(&vcpu, &memory, &entry).map_err(|e| e.to_string())?;

        let mailbox = Mailbox::new(memory.clone());
        // HLT exits here; with it the guest returns the thread.
        let control = Control {
            magic: MAGIC,
            version: VERSION,
            mode: mode::HOST,
            idle: idle::HALT,
            ..Control::default()
        };
        mailbox.write_control(&control);
        let mut this = NoIrqchip { vcpu, mailbox, pin, _vm: vm, _memory: memory };
        this.run(|mailbox| mailbox.control().state == state::READY).map_err(|e| e.to_string())?;
        Ok(this)
    }

    /// One block of round trips.
    ///
    /// # Errors
    /// KVM or the guest failed.
    pub fn block(&mut self, rounds: u32) -> Result<Block, SessionError> {
        let job = GuestJob {
            kind: kind::FLOOR,
            address: DOORBELL,
            vector: VECTOR,
            requests: rounds,
            width: 2,
            ..GuestJob::default()
        };
        let seq = self.mailbox.give(&[(0, job)]);
        let pin = self.pin;
        // A separate thread, so that pinning affects nothing else.
        let exits = std::thread::scope(|scope| {
            let body = || {
                if let Some(cpu) = pin {
                    pin_to_cpu(cpu);
                }
                self.run(|mailbox| mailbox.is_done(0, seq))
            };
            let thread = std::thread::Builder::new().name("no-irqchip".into());
            let thread = thread.spawn_scoped(scope, body).map_err(SessionError::Thread)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let outcome = completed(self.mailbox.outcome(0), &job)?;
        let samples = self.mailbox.samples(0, &outcome);
        Ok(Block {
            round_trip: samples.iter().map(|sample| sample.seen.into()).collect(),
            ticks: outcome.tsc_end - outcome.tsc_begin,
            requests: outcome.completed.into(),
            kicks: outcome.kicks,
            guest_interrupts: outcome.interrupts,
            exits_to_user: exits,
            ..Block::default()
        })
    }

    /// Runs the guest until it halts with `done` true; returns the number of exits.
    fn run(&mut self, done: impl Fn(&Mailbox) -> bool) -> Result<u64, SessionError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut exits = 0;
        let mut pending = false;
        loop {
            exits += 1;
            match self.vcpu.run() {
                Ok(VcpuExit::MmioWrite(DOORBELL, _)) => pending = true,
                Ok(VcpuExit::Hlt) => {
                    if let Some(trap) = self.mailbox.trap() {
                        return Err(trap);
                    }
                    if done(&self.mailbox) {
                        return Ok(exits);
                    }
                    self.in_time(deadline)?;
                }
                // An access to the local APIC, or to another device that this VM lacks.
                Ok(VcpuExit::MmioRead(_, data)) => {
                    data.fill(0);
                    self.in_time(deadline)?;
                }
                Ok(VcpuExit::IoIn(_, data)) => data.fill(0xff),
                Ok(VcpuExit::MmioWrite(..) | VcpuExit::IoOut(..) | VcpuExit::IrqWindowOpen) => {}
                Ok(VcpuExit::Intr) => {}
                Ok(other) => return Err(SessionError::Ended(format!("{other:?}"))),
                Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(e) => return Err(SessionError::Ended(format!("KVM_RUN failed: {e}"))),
            }
            if pending {
                pending = !self.inject()?;
            }
        }
    }

    fn in_time(&self, deadline: Instant) -> Result<(), SessionError> {
        if Instant::now() > deadline { Err(SessionError::Silent(TIMEOUT.as_secs())) } else { Ok(()) }
    }

    /// Injects the interrupt if the guest can take it now; otherwise requests an exit for the moment when it can.
    fn inject(&mut self) -> Result<bool, SessionError> {
        let run = self.vcpu.get_kvm_run();
        let ready = run.ready_for_interrupt_injection != 0;
        run.request_interrupt_window = u8::from(!ready);
        if ready {
            let interrupt = kvm_interrupt { irq: VECTOR };
            // SAFETY: the vCPU's descriptor is open, and the ioctl only reads `interrupt`, which outlives it.
            if unsafe { ioctl_with_ref(&self.vcpu, KVM_INTERRUPT(), &interrupt) } < 0 {
                let error = std::io::Error::last_os_error();
                return Err(SessionError::Ended(format!("KVM_INTERRUPT failed: {error}")));
            }
        }
        Ok(ready)
    }
}

/// `common` with the columns that name the row.
pub(super) fn row(common: Row) -> Row {
    Row {
        job: FLOOR_JOB.into(),
        notify: Some(NotifyPath::Exit.to_string()),
        complete: Some("kvm-interrupt".into()),
        wait: Some(Style::Exit.to_string()),
        queues: None,
        depth: Some(1),
        ..common
    }
}

/// The row of a host that cannot run it.
pub(super) fn absent(why: String) -> Row {
    row(Row { guest: "probe".into(), not_here: Some(why), ..Row::default() })
}
