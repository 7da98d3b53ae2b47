//! Checks of the host beside KVM: io_uring, limits, memory, VFIO.

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::Item;
use crate::host::sandbox::Abilities;
use crate::host::{Obstacle, Posting, io_uring_available};

pub(super) fn items() -> Vec<Item> {
    let mut items = vec![
        io_uring(),
        open_files(),
        memory(),
        huge_pages(),
        tracing(),
        iommu(),
        vfio(),
        iommufd(),
        locked_memory(),
        seccomp(),
        landlock(),
    ];
    items.extend(posted_interrupts(&Posting::here()));
    items
}

/// The file's text, trimmed.
pub(super) fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

/// Whether the first CPU has `flag`.
pub(super) fn has_cpu_flag(flag: &str) -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|word| word == flag))
}

/// The kernel's version; (0, 0) if it cannot be parsed.
pub(super) fn release() -> (u32, u32) {
    parse_release(&read("/proc/sys/kernel/osrelease").unwrap_or_default())
}

pub(super) fn parse_release(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn io_uring() -> Item {
    match io_uring_available() {
        Ok(()) => Item::new("io_uring", false, true, "backend=io_uring"),
        Err(reason) => Item::new("io_uring", false, false, reason).or("or use backend=sync"),
    }
}

/// The soft limit of a resource; `None`: no limit.
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    let ret = unsafe { libc::getrlimit(resource, &mut limit) };
    (ret == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn open_files() -> Item {
    /// 16 vCPUs and a few disks of 16 queues, four descriptors per queue.
    const ENOUGH: u64 = 512;
    let limit = limit(libc::RLIMIT_NOFILE);
    let found = limit.map_or("no limit".into(), |n| format!("up to {n}"));
    Item::new("open files", false, limit.is_none_or(|n| n >= ENOUGH), found)
        .or("ulimit -n 1024, for many queues")
}

fn memory() -> Item {
    const DEFAULT_MIB: u64 = 512;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let mib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10;
    Item::new("memory", false, mib >= DEFAULT_MIB, format!("{mib} MiB available"))
        .or("use a smaller --memory")
}

fn huge_pages() -> Item {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("not in this kernel").to_string();
    let present = matches!(mode.as_str(), "always" | "madvise");
    Item::new("huge pages", false, present, format!("transparent huge pages for guest RAM: {mode}"))
        .or("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
}

fn tracing() -> Item {
    const NAME: &str = "kernel tracing";
    let roots = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let usable = |root: &&str| fs::read_dir(Path::new(root).join("instances")).is_ok();
    match roots.iter().find(|root| usable(root)) {
        Some(root) => Item::new(NAME, false, true, format!("tracefs at {root}, for --kernel")),
        None => Item::new(NAME, false, false, "no tracefs that can be read, for --kernel")
            .or("as root: mount -t tracefs nodev /sys/kernel/tracing"),
    }
}

fn iommu() -> Item {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    Item::new("IOMMU", false, groups > 0, format!("{groups} groups, for --vfio"))
        .or("switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on on Intel")
}

/// A check that `path` can be opened for reading and writing.
fn device(name: &'static str, path: &str, what: &str, fix: &str) -> Item {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Item::new(name, false, true, format!("{path}, {what}")),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Item::new(name, false, false, format!("no permission to open {path}"))
                .or("run as root, or change its owner")
        }
        Err(_) => Item::new(name, false, false, format!("no {path}, {what}")).or(fix),
    }
}

fn vfio() -> Item {
    device("VFIO", "/dev/vfio/vfio", "containers for --vfio", "modprobe vfio-pci")
}

fn iommufd() -> Item {
    device(
        "iommufd",
        "/dev/iommu",
        "used by --vfio instead of a container",
        "Linux 6.2 with CONFIG_IOMMUFD has it",
    )
}

fn locked_memory() -> Item {
    /// The default machine's RAM, which --vfio pins.
    const NEEDED: u64 = 512 << 20;
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let limit = limit(libc::RLIMIT_MEMLOCK).filter(|_| !root);
    let found =
        limit.map_or("no limit for guest RAM that --vfio pins".into(), |n| format!("up to {} MiB", n >> 20));
    Item::new("locked memory", false, limit.is_none_or(|n| n >= NEEDED), found)
        .or("raise memlock in /etc/security/limits.conf above --memory, or run as root, for --vfio")
}

fn seccomp() -> Item {
    let present = Abilities::of_this_host().seccomp;
    Item::new(
        "seccomp",
        false,
        present,
        "a VM's threads make only the system calls that they need (--sandbox)",
    )
    .or("use a kernel with CONFIG_SECCOMP_FILTER")
}

fn landlock() -> Item {
    let version = Abilities::of_this_host().landlock;
    let found = match version {
        0 => "none: the sandbox guards files by system call filters alone".into(),
        version => format!("version {version}: a VM's threads open no files but those that they need"),
    };
    Item::new("Landlock", false, version > 0, found)
        .or("Linux 5.13 has it (CONFIG_SECURITY_LANDLOCK, and landlock in the kernel's lsm= list)")
}

/// Whether interrupts reach a running vCPU without an exit: those that KVM delivers, and those of devices.
pub(super) fn posted_interrupts(posting: &Posting) -> [Item; 2] {
    let vcpu: Vec<_> = posting.obstacles_to_vcpu().collect();
    let device: Vec<_> = posting.obstacles_by_device().collect();
    [
        posted("posting to a vCPU", &vcpu, "what KVM delivers reaches a running vCPU without an exit"),
        posted(
            "posting by a device",
            &device,
            "interrupts of --vfio devices reach a running vCPU without the host",
        ),
    ]
}

fn posted(name: &'static str, obstacles: &[&Obstacle], found: &str) -> Item {
    let list = |parts: Vec<&str>| parts.join("; ");
    if obstacles.is_empty() {
        return Item::new(name, false, true, found);
    }
    let item = Item::new(name, false, false, list(obstacles.iter().map(|o| o.what.as_str()).collect()));
    match list(obstacles.iter().filter_map(|o| o.fix.as_deref()).collect()) {
        fixes if fixes.is_empty() => item,
        fixes => item.or(&fixes),
    }
}
