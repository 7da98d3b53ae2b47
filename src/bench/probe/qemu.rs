use std::process::Command;

use super::super::Row;
use super::super::peer_process::{self, PeerProcess};
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
    peer_process::version(QEMU.as_ref())
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

/// Starts it.
///
/// # Errors
/// Why it does not start, as a clause.
pub(super) fn start(arguments: Vec<String>) -> Result<PeerProcess, String> {
    let mut command = Command::new(QEMU);
    command.args(arguments);
    PeerProcess::start(command)
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
