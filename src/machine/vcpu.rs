//! vCPU threads: the KVM_RUN loop, the handling of each exit, and the end of a thread.

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

/// Exits of one vCPU by reason. Only its thread writes them. They do not share a cache line with other data.
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
    /// Any other exit.
    pub other: AtomicU64,
    /// KVM's statistics of the vCPU, once the vCPU exists and if the kernel offers them.
    pub kvm: OnceLock<KvmStats>,
}

impl ExitCounters {
    /// Returns the number of all exits, including those that KVM handled (its statistic `exits`); `None` if KVM has no
    /// statistics.
    pub fn all_exits(&self) -> Option<u64> {
        self.kvm.get()?.read().ok()?.get("exits")
    }

    /// Returns the number of all exits to user space.
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

/// Adds 1. There is one writer, so a load and a store are enough, and cheaper than a locked add.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A vCPU, ready for its thread.
pub struct Vcpu {
    /// The file descriptor.
    pub fd: VcpuFd,
    /// The vCPU's number, which is its APIC ID.
    pub index: u8,
    /// Memory-mapped devices.
    pub mmio: BusView,
    /// Port devices.
    pub pio: BusView,
    /// Ends the run.
    pub exit: ExitLatch,
    /// The exit counters.
    pub counters: Arc<ExitCounters>,
    /// The host CPU to pin the thread to.
    pub pin: Option<usize>,
    /// How many times in a row KVM_RUN has returned EAGAIN.
    pub again: u32,
}

/// A vCPU that waits for its start gets EAGAIN from KVM_RUN, but never this many times in a row.
const AGAIN_MAX: u32 = 1000;

/// A running vCPU thread, with what is needed to stop it.
struct Running {
    thread: JoinHandle<VcpuFd>,
    /// The `immediate_exit` byte of the `kvm_run` page. The page lives until the thread is joined, because the thread
    /// returns the VcpuFd.
    immediate_exit: Arc<AtomicPtr<u8>>,
    ended: Receiver<()>,
}

/// The running vCPU threads. Dropping it stops them.
pub struct VcpuThreads {
    running: Vec<Running>,
    /// Dropped when the guest may run.
    gate: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
}

extern "C" fn do_nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Returns the signal that interrupts KVM_RUN. Its handler does nothing; the effect is that KVM_RUN returns EINTR.
fn stop_signal() -> i32 {
    libc::SIGRTMIN()
}

impl VcpuThreads {
    /// Starts one thread for each of `vcpus`, named vcpu0, vcpu1, ... They wait for [`VcpuThreads::go`].
    ///
    /// # Errors
    /// The host cannot start a thread. The threads that run already are stopped.
    pub fn start(vcpus: Vec<Vcpu>) -> Result<VcpuThreads, MachineError> {
        register_signal_handler(stop_signal(), do_nothing)
            .map_err(|e| MachineError::Host(format!("cannot handle the signal that stops vCPUs: {e}")))?;
        let (gate, opened) = bounded(0);
        let mut threads = VcpuThreads { running: Vec::new(), gate: Some(gate), stop: Arc::default() };
        // A thread may be confined when this returns, and a confined thread cannot pin itself any more.
        let (pinning, pinned) = bounded::<()>(0);
        for mut vcpu in vcpus {
            let immediate_exit = Arc::new(AtomicPtr::new(&raw mut vcpu.fd.get_kvm_run().immediate_exit));
            let (sender, ended) = bounded(1);
            let (stop, opened, pinning) = (threads.stop.clone(), opened.clone(), pinning.clone());
            let name = format!("vcpu{}", vcpu.index);
            let body = move || {
                vcpu.pin.into_iter().for_each(pin_to_cpu);
                drop(pinning);
                run(vcpu, &stop, &opened, sender)
            };
            let thread = thread::start(&name, body)
                .map_err(|e| MachineError::Host(format!("cannot start a vCPU's thread: {e}")))?;
            threads.running.push(Running { thread, immediate_exit, ended });
        }
        drop(pinning);
        // Nothing is ever sent: it returns when each thread has dropped its end.
        let _ = pinned.recv();
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
            // SAFETY: the byte lives until the join below, and only the kernel and this function use it. It is set
            // before the signal, so that a thread that is not in KVM_RUN yet leaves it at once.
            unsafe { AtomicU8::from_ptr(vcpu.immediate_exit.load(Ordering::Relaxed)) }
                .store(1, Ordering::Release);
            let _ = vcpu.thread.kill(stop_signal());
        };
        self.go();
        self.running.iter().for_each(interrupt_run);
        for vcpu in self.running.drain(..) {
            // The thread may also enter a blocking system call of a device (a console that nobody reads) just after
            // the signal, so repeat the signal.
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

/// Runs the vCPU, and returns the VcpuFd even after a panic: [`VcpuThreads::stop`] writes into its `kvm_run` page.
fn run(mut vcpu: Vcpu, stop: &AtomicBool, opened: &Receiver<()>, sender: Sender<()>) -> VcpuFd {
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
    /// Runs the guest until its next exit and handles the exit. Returns a reason if the run must end.
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
                // SAFETY: the exit reason shows that the union holds `io`. The page is mapped as long as `fd` is open.
                let size = unsafe { (*run).__bindgen_anon_1.io.size };
                // A string instruction transfers many items through one port.
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
            // A triple fault resets a PC. Linux uses it on purpose (reboot=t), but it may be an accident, so print it.
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
                // SAFETY: as above; the exit reason shows that the union holds `internal`.
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
            // A vCPU that waits for its start gets EAGAIN at each event.
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
