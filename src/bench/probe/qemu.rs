use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::super::Row;
use super::work::Workload;

/// One device of the reference VMM, with what is known of its paths.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PeerVariant {
    /// As in [`super::super::Row`].
    pub notify: &'static str,
    /// `None`: differs between QEMU's versions.
    pub complete: Option<&'static str>,
    /// How it waits for a kick.
    pub wait: &'static str,
    /// "null", or how it reads the file.
    pub backend: &'static str,
    /// Longest busy-poll in microseconds.
    pub poll_us: u64,
    /// Options of its I/O thread; `None`: it has none.
    iothread: Option<&'static str>,
    /// More options of the device.
    device: &'static str,
}

impl PeerVariant {
    /// The name that `--filter` matches.
    pub fn name(&self, workload: Workload) -> String {
        let poll = if self.poll_us > 0 { " poll" } else { "" };
        let complete = self.complete.map_or(String::new(), |complete| format!("+{complete}"));
        format!("{} qemu {}{complete} {} {}{poll}", workload.name, self.notify, self.wait, self.backend)
    }

    /// `common` with the columns that name the row, and without the counts that QEMU does not show.
    pub fn row(&self, workload: Workload, common: Row) -> Row {
        Row {
            job: workload.name.into(),
            peer: Some(PEER.into()),
            notify: Some(self.notify.into()),
            complete: self.complete.map(String::from),
            backend: Some(self.backend.into()),
            wait: Some(self.wait.into()),
            depth: Some(workload.depth.into()),
            poll_us: Some(self.poll_us),
            exits: None,
            exits_to_user: None,
            ..common
        }
    }
}

/// [`Row::peer`].
pub(super) const PEER: &str = "qemu";

/// QEMU registers its ioeventfds with length 0 if KVM supports it (virtio_pci_ioeventfd_assign), and an I/O thread
/// completes by irqfd.
const BLOCKING: PeerVariant = PeerVariant {
    notify: "fast-mmio",
    complete: Some("irqfd"),
    wait: "blocking",
    backend: "null",
    poll_us: 0,
    iothread: Some(",poll-max-ns=0"),
    device: "",
};

/// The measured devices. With ioeventfd=off QEMU uses no I/O thread: the vCPU's thread serves its own kick.
pub(super) const PEER_VARIANTS: [PeerVariant; 6] = [
    BLOCKING,
    // The default of poll-max-ns is 32768.
    PeerVariant { wait: "memory-poll", poll_us: 33, iothread: Some(""), ..BLOCKING },
    PeerVariant { wait: "main-loop", complete: None, iothread: None, ..BLOCKING },
    PeerVariant {
        notify: "exit",
        complete: None,
        wait: "exit",
        iothread: None,
        device: ",ioeventfd=off",
        ..BLOCKING
    },
    PeerVariant { backend: "threads", ..BLOCKING },
    PeerVariant { backend: IO_URING, ..BLOCKING },
];

pub(super) const IO_URING: &str = "io_uring";

/// The files for QEMU.
pub(super) struct Files {
    /// Guest RAM, shared.
    pub ram: String,
    /// The probe.
    pub kernel: String,
    /// The file that the file backends read.
    pub disk: String,
}

const QEMU: &str = "qemu-system-x86_64";

/// The first line of `qemu-system-x86_64 --version`.
///
/// # Errors
/// Why it cannot be started, as a clause.
pub(super) fn version() -> Result<String, String> {
    let output = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output().map_err(|e| reason(&e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{QEMU} is not installed"),
        _ => format!("{QEMU} does not start: {error}"),
    }
}

/// The command line: q35 with `firmware` ("": QEMU's own choice), the probe in `ram_size` bytes of shared memory, and
/// one device for each of `variants`, in this order on the bus.
pub(super) fn arguments<'a>(
    files: &Files,
    ram_size: u64,
    disk_size: u64,
    firmware: &str,
    variants: impl Iterator<Item = &'a PeerVariant>,
) -> Vec<String> {
    // A comma ends a value unless it is doubled.
    let quoted = |path: &str| path.replace(',', ",,");
    let mut all: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| all.extend([flag.to_owned(), value]);
    add("-name", "doorbell-peer,debug-threads=on".into());
    add("-accel", "kvm".into());
    // Some KVMs refuse this CPU flag; the probe does not read it.
    add("-cpu", "host,-arch-capabilities".into());
    add("-m", format!("{}M", ram_size >> 20));
    let ram = format!("id=ram,size={ram_size},mem-path={},share=on", quoted(&files.ram));
    add("-object", format!("memory-backend-file,{ram}"));
    add("-machine", "q35,memory-backend=ram".into());
    add("-display", "none".into());
    add("-monitor", "none".into());
    add("-serial", "none".into());
    add("-kernel", files.kernel.clone());
    if !firmware.is_empty() {
        add("-bios", firmware.into());
    }
    for (n, variant) in variants.enumerate() {
        let node = match variant.backend {
            "null" => format!("driver=null-co,size={disk_size},read-zeroes=off"),
            // Our VM has the same file open and locked; nobody writes to it.
            aio => {
                let file = quoted(&files.disk);
                format!("driver=file,filename={file},read-only=on,locking=off,aio={aio}")
            }
        };
        add("-blockdev", format!("{node},node-name=n{n}"));
        let mut device = format!("virtio-blk-pci,drive=n{n},num-queues=1,queue-size=256{}", variant.device);
        if let Some(options) = variant.iothread {
            add("-object", format!("iothread,id=io{n}{options}"));
            device += &format!(",iothread=io{n}");
        }
        add("-device", device);
    }
    all.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    all
}

/// A QEMU process that does not outlive us: it is killed on drop, and by the kernel when the thread that started it ends.
pub(super) struct Process(Child);

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// Why it does not start, as a clause.
    pub fn start(arguments: Vec<String>) -> Result<Process, String> {
        let mut command = Command::new(QEMU);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: getpid cannot fail.
        let us = unsafe { libc::getpid() };
        // Another process group: Ctrl-C goes only to us, and we end QEMU.
        command.process_group(0);
        let bind = move || {
            // SAFETY: system calls without pointers, allowed between fork and exec.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // We may have died before the call above.
                if libc::getppid() != us {
                    libc::_exit(1);
                }
            }
            Ok(())
        };
        // SAFETY: `bind` does nothing but those two calls.
        unsafe { command.pre_exec(bind) };
        command.spawn().map(Process).map_err(|e| reason(&e))
    }

    /// Why it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.0.try_wait().ok()??;
        let mut output = String::new();
        if let Some(mut pipe) = self.0.stderr.take() {
            let _ = pipe.read_to_string(&mut output);
        }
        // The first error line; hints may follow it.
        let line = output.lines().map(str::trim).find(|line| !line.is_empty() && !line.contains("warning:"));
        Some(
            line.map_or_else(
                || format!("{QEMU} ended with {status}"),
                |line| format!("its error is \"{line}\""),
            ),
        )
    }

    /// Continues or stops all its threads.
    pub fn set_running(&self, running: bool) {
        let signal = if running { libc::SIGCONT } else { libc::SIGSTOP };
        // SAFETY: no pointers; the process is our child, so its PID is not reused until we have waited for it.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    /// Pins its vCPU to one host CPU and its other threads to another.
    pub fn pin(&self, vcpu: usize, rest: usize) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id()));
        for task in tasks.into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let cpu = if name.starts_with("CPU ") { vcpu } else { rest };
            let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            // SAFETY: a cpu_set_t is plain bits.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            if cpu < 8 * size_of_val(&set) {
                // SAFETY: the index is within the set.
                unsafe { libc::CPU_SET(cpu, &mut set) };
                // SAFETY: reads the set, which outlives the call. A thread that has just ended needs no CPU.
                unsafe { libc::sched_setaffinity(id, size_of_val(&set), &set) };
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
