//! vCPU threads: the KVM_RUN loop, what each exit means, and how a thread is stopped.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, register_signal_handler};

use super::MachineError;
use super::bus::BusView;
use super::exit::{ExitLatch, ExitReason};
use crate::host::thread::{self, watched};
use crate::host::{log, pin_to_cpu};
use crate::kvm::KvmStats;

/// Exits of one vCPU by reason. Written by its thread only, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ExitCounters {
    /// KVM_EXIT_MMIO, loads.
    pub mmio_read: AtomicU64,
    /// KVM_EXIT_MMIO, stores.
    pub mmio_write: AtomicU64,
    /// KVM_EXIT_IO, in.
    pub io_in: AtomicU64,
    /// KVM_EXIT_IO, out.
    pub io_out: AtomicU64,
    /// KVM_EXIT_HLT (only without an in-kernel local APIC).
    pub hlt: AtomicU64,
    /// KVM_RUN interrupted by a signal.
    pub interrupted: AtomicU64,
    /// Any other.
    pub other: AtomicU64,
    /// KVM's own statistics of the vCPU, once there is one and if the kernel offers them.
    pub kvm: OnceLock<KvmStats>,
}

impl ExitCounters {
    /// All exits, those that KVM handled by itself included (its statistic `exits`); `None` if it does not tell.
    pub fn all_exits(&self) -> Option<u64> {
        self.kvm.get()?.read().ok()?.get("exits")
    }

    /// All exits to user space.
    pub fn total(&self) -> u64 {
        [
            &self.mmio_read,
            &self.mmio_write,
            &self.io_in,
            &self.io_out,
            &self.hlt,
            &self.interrupted,
            &self.other,
        ]
        .iter()
        .map(|c| c.load(Ordering::Relaxed))
        .sum()
    }
}

/// One writer: a load and a store cost less than a locked addition.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A vCPU before its thread runs.
pub struct Vcpu {
    /// The file descriptor.
    pub fd: VcpuFd,
    /// Its number and APIC ID.
    pub index: u8,
    /// Memory-mapped devices.
    pub mmio: BusView,
    /// Port devices.
    pub pio: BusView,
    /// Where it says that the run is over.
    pub exit: ExitLatch,
    /// Its counts.
    pub counters: Arc<ExitCounters>,
    /// Host CPU to stay on.
    pub pin: Option<usize>,
    /// Times in a row that KVM_RUN returned EAGAIN.
    pub again: u32,
}

/// EAGAIN of KVM_RUN that many times in a row is no vCPU that waits for its start.
const AGAIN_MAX: u32 = 1000;

/// What other threads need to stop one.
struct Running {
    thread: JoinHandle<VcpuFd>,
    /// `immediate_exit` of its `kvm_run` page, which lives until the thread has been joined: it hands the VcpuFd back.
    immediate_exit: Arc<AtomicPtr<u8>>,
    ended: Receiver<()>,
}

/// The running vCPU threads; dropping stops them.
pub struct VcpuThreads {
    running: Vec<Running>,
    /// Dropped when the guest may run.
    gate: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
}

extern "C" fn do_nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal that takes a vCPU thread out of KVM_RUN. Its handler does nothing; EINTR is the message.
fn stop_signal() -> i32 {
    libc::SIGRTMIN()
}

impl VcpuThreads {
    /// Starts one thread for each of `vcpus`, named vcpu0, vcpu1, ... They wait for [`VcpuThreads::go`].
    ///
    /// # Errors
    /// The host could not start a thread; those that run already are stopped.
    pub fn start(vcpus: Vec<Vcpu>) -> Result<VcpuThreads, MachineError> {
        register_signal_handler(stop_signal(), do_nothing)
            .map_err(|e| MachineError::Host(format!("the signal that stops vCPUs has no handler: {e}")))?;
        let (gate, opened) = bounded(0);
        let mut threads = VcpuThreads { running: Vec::new(), gate: Some(gate), stop: Arc::default() };
        for mut vcpu in vcpus {
            let immediate_exit = Arc::new(AtomicPtr::new(&raw mut vcpu.fd.get_kvm_run().immediate_exit));
            let (sender, ended) = bounded(1);
            let (stop, opened) = (threads.stop.clone(), opened.clone());
            let name = format!("vcpu{}", vcpu.index);
            let thread = thread::start(&name, move || run(vcpu, &stop, &opened, sender))
                .map_err(|e| MachineError::Host(format!("no thread for a vCPU: {e}")))?;
            threads.running.push(Running { thread, immediate_exit, ended });
        }
        Ok(threads)
    }

    /// Lets them enter the guest.
    pub fn go(&mut self) {
        self.gate = None;
    }

    /// Stops and joins all of them.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let interrupt_run = |vcpu: &Running| {
            // SAFETY: the byte lives until the join below, and the kernel and this are its only users. It is set
            // before the signal: a thread that is not in KVM_RUN yet leaves it at once.
            unsafe { AtomicU8::from_ptr(vcpu.immediate_exit.load(Ordering::Relaxed)) }
                .store(1, Ordering::Release);
            let _ = vcpu.thread.kill(stop_signal());
        };
        self.go();
        self.running.iter().for_each(interrupt_run);
        for vcpu in self.running.drain(..) {
            // The thread may also sit in a system call of a device (a console that nobody reads), which the first
            // signal may have come too early for.
            while vcpu.ended.recv_timeout(Duration::from_millis(20)).is_err() && !vcpu.thread.is_finished() {
                interrupt_run(&vcpu);
            }
            let _ = vcpu.thread.join();
        }
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives the VcpuFd back whatever happens: [`VcpuThreads::stop`] writes into its `kvm_run` page.
fn run(mut vcpu: Vcpu, stop: &AtomicBool, opened: &Receiver<()>, sender: Sender<()>) -> VcpuFd {
    if let Some(cpu) = vcpu.pin {
        pin_to_cpu(cpu);
    }
    let exit = vcpu.exit.clone();
    watched(&format!("vcpu{}", vcpu.index), &*exit.on_death(), || {
        // Nothing is ever sent: the gate opens when it is dropped.
        let _ = opened.recv();
        while !stop.load(Ordering::Acquire) {
            if let Some(reason) = vcpu.step() {
                exit.request(reason);
                break;
            }
        }
        Ok(())
    });
    let _ = sender.send(());
    vcpu.fd
}

impl Vcpu {
    /// Runs the guest up to its next exit and handles it; `Some` ends the run.
    fn step(&mut self) -> Option<ExitReason> {
        let run = std::ptr::from_mut(self.fd.get_kvm_run());
        let counters = &self.counters;
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&counters.mmio_read);
                self.mmio.read(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&counters.mmio_write);
                self.mmio.write(address, data);
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                count(&counters.io_in);
                // SAFETY: the exit says that the union holds `io`; the page is mapped as long as `fd`.
                let size = unsafe { (*run).__bindgen_anon_1.io.size };
                // A string instruction brings many items for one port.
                data.chunks_mut(size.max(1).into()).for_each(|item| self.pio.read(port.into(), item));
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&counters.io_out);
                // SAFETY: as above.
                let size = unsafe { (*run).__bindgen_anon_1.io.size };
                data.chunks(size.max(1).into()).for_each(|item| self.pio.write(port.into(), item));
            }
            Ok(VcpuExit::Hlt) => count(&counters.hlt),
            Ok(VcpuExit::Intr) => count(&counters.interrupted),
            Ok(VcpuExit::SystemEvent(kind, _)) => {
                return Some(match kind {
                    kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => ExitReason::PowerOff,
                    kvm_bindings::KVM_SYSTEM_EVENT_RESET => ExitReason::Reset,
                    _ => self.crash(&format!("the guest reported a crash (system event {kind})")),
                });
            }
            // As on a PC. Linux does it on purpose (reboot=t), others by accident, so it is said.
            Ok(VcpuExit::Shutdown) => {
                log::warn(
                    "guest",
                    format_args!("{}", self.stopped("triple fault, which resets the machine")),
                );
                return Some(ExitReason::Reset);
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Some(self.crash(&format!("the CPU refused to enter the guest (reason {reason:#x})")));
            }
            Ok(VcpuExit::InternalError) => {
                // SAFETY: as above; the exit says `internal`.
                let suberror = unsafe { (*run).__bindgen_anon_1.internal.suberror };
                let what = match suberror {
                    kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "KVM cannot emulate the instruction",
                    _ => "KVM internal error",
                };
                return Some(self.crash(&format!("{what} (suberror {suberror})")));
            }
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                return Some(self.crash(&format!("no host memory behind guest address {gpa:#x}")));
            }
            Ok(other) => {
                let what = format!("unexpected exit {other:?}");
                return Some(self.crash(&what));
            }
            Err(e) if e.errno() == libc::EINTR => count(&counters.interrupted),
            // A vCPU that waits for its start is told so at each event.
            Err(e) if e.errno() == libc::EAGAIN && self.again < AGAIN_MAX => {
                count(&counters.interrupted);
                self.again += 1;
                return None;
            }
            Err(e) if e.errno() == libc::EAGAIN => {
                return Some(ExitReason::Host(format!(
                    "KVM_RUN of vCPU {} finds no resources (EAGAIN): KVM cannot start its worker thread; raise \
                     `ulimit -u` or the pids limit of the container",
                    self.index
                )));
            }
            Err(e) => return Some(self.crash(&format!("KVM_RUN failed: {e}"))),
        }
        self.again = 0;
        None
    }

    fn crash(&self, what: &str) -> ExitReason {
        ExitReason::Crash(format!("the guest cannot go on: {}", self.stopped(what)))
    }

    fn stopped(&self, what: &str) -> String {
        count(&self.counters.other);
        let at = match self.fd.get_regs() {
            Ok(regs) => format!("rip {:#x}", regs.rip),
            Err(_) => "an unknown rip".into(),
        };
        format!("vCPU {} stopped at {at}: {what}", self.index)
    }
}
