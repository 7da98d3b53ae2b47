//! Checks whether the host uses a device: passing a mounted disk through would lose data.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::vfio::{Bdf, Host, VfioError};

/// Refuses a device whose disk is mounted, swapped on, held by another block device or opened exclusively, whose network
/// interface is up or belongs to another network namespace, whose character device is open, or that has virtual functions.
///
/// # Errors
/// [`VfioError::InUse`], with the user and the fix.
pub fn check(host: &Host, bdf: Bdf) -> Result<(), VfioError> {
    let in_use = |(reason, fix): (String, String)| VfioError::InUse { bdf, reason, fix };
    let Ok(dir) = fs::canonicalize(host.device_dir(bdf)) else { return Ok(()) };
    for disk in below(host, "sys/class/block", &dir) {
        if let Some(use_) = disk_use(host, &disk) {
            return Err(in_use(use_));
        }
    }
    for interface in below(host, "sys/class/net", &dir) {
        let name = name_of(&interface);
        let flags = read(&interface.join("flags"));
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
        if flags & libc::IFF_UP as u32 != 0 {
            let fix = format!("take it down (ip link set {name} down)");
            return Err(in_use((format!("network interface {name} is up"), fix)));
        }
    }
    other_use(host, &dir).map_or(Ok(()), |found| Err(in_use(found)))
}

/// What keeps a device that is no disk of ours in use.
fn other_use(host: &Host, dir: &Path) -> Option<(String, String)> {
    // The folder is there as long as the device has an interface, and shows only those of our network namespace.
    if fs::read_dir(dir.join("net")).is_ok_and(|mut names| names.next().is_none()) {
        let fix = "move it back (ip -n NAMESPACE link set INTERFACE netns 1)".to_owned();
        return Some(("its network interface belongs to another network namespace".into(), fix));
    }
    let functions: u32 = read(&dir.join("sriov_numvfs")).parse().unwrap_or(0);
    if functions > 0 {
        let fix = format!("remove them (echo 0 > {})", dir.join("sriov_numvfs").display());
        return Some((format!("it has {functions} virtual functions"), fix));
    }
    // Character devices: of a graphics card, of an NVMe controller and its namespaces.
    let classes = [("drm", "dri/"), ("nvme", ""), ("nvme-generic", "")];
    let nodes: Vec<_> = classes
        .iter()
        .flat_map(|(class, below_dev)| {
            let entries = below(host, &format!("sys/class/{class}"), dir);
            entries
                .into_iter()
                .map(move |entry| PathBuf::from(format!("/dev/{below_dev}{}", name_of(&entry))))
        })
        .collect();
    let node = nodes.iter().find(|node| opened(host, &[node]))?.display();
    Some((format!("{node} is open"), format!("end the program that has it open (fuser -v {node})")))
}

/// Whether another process has the device's VFIO group or character device open.
pub fn opened_by_another(host: &Host, bdf: Bdf) -> bool {
    let group = host.group(bdf).map(|group| PathBuf::from(format!("/dev/vfio/{}", group.id)));
    let cdev = host.cdev(bdf).map(|name| PathBuf::from(format!("/dev/vfio/devices/{name}")));
    opened(host, &group.iter().chain(&cdev).collect::<Vec<_>>())
}

/// Whether another process has one of these files open. Those of other users are visible only to root.
fn opened(host: &Host, files: &[&PathBuf]) -> bool {
    let Ok(processes) = fs::read_dir(host.path("proc")) else { return false };
    let ours = std::process::id().to_string();
    let others = processes.flatten().filter(|process| process.file_name() != *ours);
    others.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).any(|descriptors| {
        let mut targets = descriptors.flatten().filter_map(|d| fs::read_link(d.path()).ok());
        targets.any(|target| files.contains(&&target))
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The entries of a class that belong to the device at `dir`, partitions among them.
fn below(host: &Host, class: &str, dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(host.path(class)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| belongs(path, dir)).collect()
}

fn belongs(entry: &Path, dir: &Path) -> bool {
    let Ok(real) = fs::canonicalize(entry) else { return false };
    if real.starts_with(dir) {
        return true;
    }
    // An NVMe namespace with native multipath hangs below its subsystem, which links to its controllers.
    real.ancestors().filter(|a| a.parent().is_some_and(|p| name_of(p) == "nvme-subsystem")).any(|subsystem| {
        fs::read_dir(subsystem).is_ok_and(|entries| {
            entries.flatten().any(|e| {
                name_of(&e.path()).starts_with("nvme")
                    && fs::canonicalize(e.path()).is_ok_and(|controller| controller.starts_with(dir))
            })
        })
    })
}

/// The user of the disk or partition at `class`, and what to do about it.
fn disk_use(host: &Host, class: &Path) -> Option<(String, String)> {
    let name = name_of(class);
    let node = host.path("dev").join(&name);
    if let Some(at) = mounted(host, &name, &read(&class.join("dev"))) {
        return Some((format!("/dev/{name} is mounted on {at}"), format!("unmount it (umount {at})")));
    }
    if read(&host.path("proc/swaps"))
        .lines()
        .any(|l| l.split_whitespace().next() == Some(&format!("/dev/{name}")))
    {
        return Some((format!("/dev/{name} is swap"), format!("switch it off (swapoff /dev/{name})")));
    }
    let holders = fs::read_dir(class.join("holders")).into_iter().flatten().flatten();
    let holders: Vec<_> = holders.map(|e| name_of(&e.path())).collect();
    if !holders.is_empty() {
        let fix = "stop that device (dmsetup, vgchange -an, mdadm --stop)".to_owned();
        return Some((format!("/dev/{name} is part of {}", holders.join(", ")), fix));
    }
    // Any other user: the kernel allows one exclusive open.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(node);
    match open.err().and_then(|e: io::Error| e.raw_os_error()) {
        Some(libc::EBUSY) => {
            let fix = format!("end the program that has it open (fuser -v /dev/{name})");
            Some((format!("/dev/{name} is opened exclusively"), fix))
        }
        _ => None,
    }
}

/// Where a block device is mounted: found by its number, or by name for file systems that show another number.
fn mounted(host: &Host, name: &str, number: &str) -> Option<String> {
    read(&host.path("proc/self/mountinfo")).lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (device, at) = (fields.nth(2)?, fields.nth(1)?);
        let source = fields.skip_while(|f| *f != "-").nth(2).unwrap_or("");
        let found = !number.is_empty() && device == number || source == format!("/dev/{name}");
        found.then(|| at.to_owned())
    })
}

#[cfg(test)]
#[path = "in_use_tests.rs"]
mod tests;
