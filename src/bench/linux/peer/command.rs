//! The command lines of reference VMMs: one virtio disk under test on an I/O thread, one for results, a serial console.

use std::path::PathBuf;
use std::process::Command;

use super::spec::{Peer, PeerKind};
use crate::backend::BackendKind;

/// Serial number of the disk under test.
pub const DISK: &str = "bench";
/// Serial number of the disk for results.
pub const OUT: &str = "doorbell-out";

/// What the VM is made of.
#[derive(Clone, Debug)]
pub struct VmFacts {
    /// Kernel.
    pub kernel: PathBuf,
    /// Its command line.
    pub cmdline: String,
    /// vCPUs.
    pub cpus: u8,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// How the disk is read and written.
    pub backend: BackendKind,
    /// O_DIRECT.
    pub direct: bool,
    /// Request queues of the disk.
    pub queues: u16,
    /// Longest busy-poll, in microseconds; 0: the VMM's own default.
    pub poll_us: u64,
}

/// Files that a child process can open.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Initial ramdisk, with the job.
    pub initrd: PathBuf,
    /// The disk under test.
    pub disk: PathBuf,
    /// The disk for results.
    pub out: PathBuf,
    /// Where the console is written to.
    pub console: PathBuf,
}

/// The ways to start `peer`, the best one first: versions differ in what they take.
pub fn attempts(peer: &Peer, vm: &VmFacts, paths: &Paths) -> Vec<Command> {
    let variants = match peer.kind {
        // SeaBIOS, which a QEMU without qboot has, takes seconds. A cloud-hypervisor that knows image types writes to a disk's
        // first sector only if it is told that the image is raw.
        PeerKind::Qemu => [qemu(vm, paths, &["-bios", "qboot.rom"]), qemu(vm, paths, &[])],
        PeerKind::CloudHypervisor => {
            [cloud_hypervisor(vm, paths, ",image_type=raw"), cloud_hypervisor(vm, paths, "")]
        }
        PeerKind::Host => return Vec::new(),
    };
    let command = |arguments: Vec<String>| {
        let mut command = Command::new(&peer.program);
        command.args(arguments);
        command
    };
    variants.into_iter().map(command).collect()
}

fn qemu(vm: &VmFacts, paths: &Paths, more: &[&str]) -> Vec<String> {
    // A comma ends a value unless it is doubled.
    let quoted = |path: &PathBuf| path.display().to_string().replace(',', ",,");
    let aio = if vm.backend == BackendKind::Sync { "threads" } else { "io_uring" };
    let direct = if vm.direct { ",cache.direct=on" } else { "" };
    let poll = if vm.poll_us > 0 { format!(",poll-max-ns={}", vm.poll_us * 1000) } else { String::new() };
    // One name per queue: QEMU wants as many as there are.
    let VmFacts { cpus, queues, .. } = vm;
    let mut line: Vec<String> = ["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from).into();
    let mut add = |flag: &str, value: String| line.extend([flag.to_owned(), value]);
    add("-name", "doorbell-peer,debug-threads=on".into());
    add("-machine", "q35".into());
    add("-accel", "kvm".into());
    add("-cpu", "host".into());
    add("-m", format!("{}M", vm.memory >> 20));
    add("-smp", cpus.to_string());
    add("-kernel", vm.kernel.display().to_string());
    add("-initrd", paths.initrd.display().to_string());
    add("-append", vm.cmdline.clone());
    add("-display", "none".into());
    add("-monitor", "none".into());
    add("-chardev", format!("file,id=console,path={}", quoted(&paths.console)));
    add("-serial", "chardev:console".into());
    add("-object", format!("iothread,id=io0{poll}"));
    let disk = quoted(&paths.disk);
    add("-blockdev", format!("driver=file,node-name=d0,filename={disk},locking=off,aio={aio}{direct}"));
    add(
        "-device",
        format!("virtio-blk-pci,drive=d0,serial={DISK},iothread=io0,num-queues={queues},queue-size=256"),
    );
    add("-blockdev", format!("driver=file,node-name=o0,filename={},locking=off", quoted(&paths.out)));
    add("-device", format!("virtio-blk-pci,drive=o0,serial={OUT}"));
    line.extend(more.iter().map(ToString::to_string));
    line
}

fn cloud_hypervisor(vm: &VmFacts, paths: &Paths, image: &str) -> Vec<String> {
    let direct = if vm.direct { ",direct=on" } else { "" };
    // The only option that avoids both io_uring and libaio. It is hidden, and meant for cloud-hypervisor's own tests.
    let sync = if vm.backend == BackendKind::Sync { ",_disable_io_uring=on,_disable_aio=on" } else { "" };
    let (disk, out) = (paths.disk.display(), paths.out.display());
    let words = [
        ("--kernel", vm.kernel.display().to_string()),
        ("--initramfs", paths.initrd.display().to_string()),
        ("--cmdline", vm.cmdline.clone()),
        ("--cpus", format!("boot={}", vm.cpus)),
        ("--memory", format!("size={}M", vm.memory >> 20)),
        ("--serial", format!("file={}", paths.console.display())),
        ("--console", "off".into()),
    ];
    let mut line: Vec<String> =
        words.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]).collect();
    line.push("--disk".into());
    line.push(format!(
        "path={disk},serial={DISK},num_queues={},queue_size=256{direct}{sync}{image}",
        vm.queues
    ));
    line.push(format!("path={out},serial={OUT}{image}"));
    line
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
