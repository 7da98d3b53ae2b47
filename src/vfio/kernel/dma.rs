//! Opens a device and maps guest RAM for its DMA: through iommufd if the kernel has it, otherwise through a type-1 container.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::host::Locked;
use crate::kvm::VmIoctls;
use crate::vfio::admin::host::{Group, blocks_binding};
use crate::vfio::admin::in_use;
use crate::vfio::kernel::kvm_device::KvmVfio;
use crate::vfio::kernel::sys;
use crate::vfio::{Bdf, Host, VfioError, VfioFd};

/// The guest whose RAM the devices access.
#[derive(Debug)]
pub struct Guest {
    /// The VM, in which KVM's VFIO device is created.
    pub vm: Arc<dyn VmIoctls>,
    /// Its RAM, mapped at the same addresses for the devices as for the guest.
    pub memory: Arc<GuestMemoryMmap>,
}

/// The I/O address space that all devices of a guest share. RAM is mapped into it with the first device and unmapped when
/// it is dropped, which must be after the devices.
#[derive(Debug)]
pub struct Dma {
    host: Host,
    guest: Option<Guest>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    space: Option<Space>,
    mapped: bool,
    kvm: Option<KvmVfio>,
}

#[derive(Debug)]
enum Space {
    /// A container of groups.
    Container { container: OwnedFd, groups: Vec<(String, OwnedFd)> },
    /// An iommufd with one I/O address space.
    Iommufd { iommufd: OwnedFd, ioas: u32 },
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open(path).map(File::into)
}

impl Dma {
    /// Opens nothing yet. Without a guest, devices can be inspected and their interrupts tested.
    pub fn new(host: Host, guest: Option<Guest>) -> Arc<Dma> {
        Arc::new(Dma { host, guest, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// How devices are opened: "type-1 container" or "iommufd"; `None` before the first is open.
    pub fn kind(&self) -> Option<&'static str> {
        self.lock().space.as_ref().map(|space| match space {
            Space::Container { .. } => "type-1 container",
            Space::Iommufd { .. } => "iommufd",
        })
    }

    /// Opens `bdf` and maps guest RAM for it.
    ///
    /// # Errors
    /// There is no such device; it is not bound to vfio-pci; its group is not viable; it is in use; permission is missing;
    /// or too little memory may be locked. On an error everything that was opened is closed again.
    pub fn open(&self, bdf: Bdf) -> Result<VfioFd, VfioError> {
        let device = self.host.device(bdf)?;
        let group = device.group.ok_or(VfioError::NoIommu(bdf))?;
        // Vendor variants of vfio-pci have "vfio" in their names.
        if !device.driver.as_ref().is_some_and(|name| name.contains("vfio")) {
            return Err(VfioError::NotBound { bdf, driver: device.driver });
        }
        if let Some(guest) = &self.guest {
            check_memlock(&self.host, bdf, guest)?;
        }
        let mut state = self.lock();
        if let (None, Some(guest)) = (&state.kvm, &self.guest) {
            state.kvm = KvmVfio::new(&*guest.vm);
        }
        let cdev = self.host.cdev(bdf).map(|name| self.host.path("dev/vfio/devices").join(name));
        let iommu = self.host.path("dev/iommu");
        let fd = match cdev.filter(|path| path.exists() && iommu.exists()) {
            Some(cdev) if !matches!(state.space, Some(Space::Container { .. })) => {
                self.open_cdev(&mut state, bdf, &cdev, &iommu)?
            }
            _ => self.open_in_group(&mut state, bdf, &group)?,
        };
        self.map_ram(&mut state)?;
        VfioFd::new(fd).map_err(|e| ioctl_error("VFIO_DEVICE_GET_INFO", bdf, e))
    }

    fn open_cdev(
        &self,
        state: &mut State,
        bdf: Bdf,
        cdev: &Path,
        iommu: &Path,
    ) -> Result<OwnedFd, VfioError> {
        if state.space.is_none() {
            let iommufd = open(iommu).map_err(|e| VfioError::file("opening", iommu, e))?;
            let ioas =
                sys::ioas_alloc(iommufd.as_fd()).map_err(|e| ioctl_error("IOMMU_IOAS_ALLOC", bdf, e))?;
            state.space = Some(Space::Iommufd { iommufd, ioas });
        }
        let Some(Space::Iommufd { iommufd, ioas }) = &state.space else {
            return Err(VfioError::Busy { bdf });
        };
        let device = open(cdev).map_err(|e| open_error(bdf, cdev, e))?;
        // Before the bind, because at the bind VFIO looks for the device's VM.
        if let Some(kvm) = &mut state.kvm {
            kvm.add(device.as_fd());
        }
        sys::device_bind(device.as_fd(), iommufd.as_fd()).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => VfioError::Busy { bdf },
            // What the kernel says to the second process that binds a device's character device.
            Some(libc::EINVAL) if in_use::opened_by_another(&self.host, bdf) => VfioError::Busy { bdf },
            Some(libc::EINVAL | libc::EPERM)
                if self.host.group(bdf).is_some_and(|g| !blocking_devices(&g).is_empty()) =>
            {
                not_viable(bdf, &self.host)
            }
            _ => ioctl_error("VFIO_DEVICE_BIND_IOMMUFD", bdf, e),
        })?;
        sys::device_attach(device.as_fd(), *ioas)
            .map_err(|e| ioctl_error("VFIO_DEVICE_ATTACH_IOMMUFD_PT", bdf, e))?;
        Ok(device)
    }

    fn open_in_group(&self, state: &mut State, bdf: Bdf, group: &Group) -> Result<OwnedFd, VfioError> {
        let path = self.host.path("dev/vfio/vfio");
        if state.space.is_none() {
            let container = open(&path).map_err(|e| VfioError::file("opening", &path, e))?;
            if !sys::container_fits(container.as_fd())
                .map_err(|e| ioctl_error("VFIO_GET_API_VERSION", bdf, e))?
            {
                let what = "needs the type-1 IOMMU driver: run `modprobe vfio_iommu_type1` as root".into();
                return Err(VfioError::Device { bdf, what });
            }
            state.space = Some(Space::Container { container, groups: Vec::new() });
        }
        let Some(Space::Container { container, groups }) = &mut state.space else {
            let what = "has no VFIO character device, but the other devices of this guest have one".into();
            return Err(VfioError::Device { bdf, what });
        };
        if !groups.iter().any(|(id, _)| *id == group.id) {
            let fd = self.join(container.as_fd(), groups.is_empty(), bdf, group)?;
            if let Some(kvm) = &mut state.kvm {
                kvm.add(fd.as_fd());
            }
            groups.push((group.id.clone(), fd));
        }
        let fd = groups.iter().find(|(id, _)| *id == group.id).map(|(_, fd)| fd);
        let fd = fd.ok_or(VfioError::Busy { bdf })?;
        sys::group_device(fd.as_fd(), &bdf.to_string()).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => VfioError::Busy { bdf },
            _ => ioctl_error("VFIO_GROUP_GET_DEVICE_FD", bdf, e),
        })
    }

    /// Opens the group and puts it into the container.
    fn join(
        &self,
        container: BorrowedFd<'_>,
        first: bool,
        bdf: Bdf,
        group: &Group,
    ) -> Result<OwnedFd, VfioError> {
        let path = self.host.path("dev/vfio").join(&group.id);
        let fd = open(&path).map_err(|e| open_error(bdf, &path, e))?;
        if !sys::group_viable(fd.as_fd()).map_err(|e| ioctl_error("VFIO_GROUP_GET_STATUS", bdf, e))? {
            return Err(not_viable(bdf, &self.host));
        }
        sys::group_set_container(fd.as_fd(), container)
            .map_err(|e| ioctl_error("VFIO_GROUP_SET_CONTAINER", bdf, e))?;
        if first {
            sys::container_set_iommu(container).map_err(|e| ioctl_error("VFIO_SET_IOMMU", bdf, e))?;
        }
        Ok(fd)
    }

    fn map_ram(&self, state: &mut State) -> Result<(), VfioError> {
        let (Some(guest), false, Some(space)) = (&self.guest, state.mapped, &state.space) else {
            return Ok(());
        };
        for region in guest.memory.iter() {
            let (iova, address, len) = (region.start_addr().0, region.as_ptr() as u64, region.len());
            // SAFETY: the memory is guest RAM, which `guest` keeps mapped until this value is dropped, and to which no
            // Rust reference exists: the guest writes it as a device does.
            let (name, mapped) = unsafe {
                match space {
                    Space::Container { container, .. } => {
                        ("VFIO_IOMMU_MAP_DMA", sys::container_map(container.as_fd(), iova, address, len))
                    }
                    Space::Iommufd { iommufd, ioas } => {
                        ("IOMMU_IOAS_MAP", sys::ioas_map(iommufd.as_fd(), *ioas, iova, address, len))
                    }
                }
            };
            let what = format!("{} MiB of guest RAM at {iova:#x}", len >> 20);
            mapped.map_err(|source| VfioError::Ioctl { ioctl: name, what, source })?;
        }
        state.mapped = true;
        Ok(())
    }
}

impl Drop for Dma {
    fn drop(&mut self) {
        let state = self.state.unlocked_mut();
        // An iommufd unmaps when it is closed.
        if let (true, Some(Space::Container { container, .. }), Some(guest)) =
            (state.mapped, &state.space, &self.guest)
        {
            for region in guest.memory.iter() {
                let _ = sys::container_unmap(container.as_fd(), region.start_addr().0, region.len());
            }
        }
    }
}

fn ioctl_error(ioctl: &'static str, bdf: Bdf, source: io::Error) -> VfioError {
    VfioError::Ioctl { ioctl, what: bdf.to_string(), source }
}

fn open_error(bdf: Bdf, path: &Path, error: io::Error) -> VfioError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => VfioError::Busy { bdf },
        _ => VfioError::file("opening", path, error),
    }
}

fn blocking_devices(group: &Group) -> Vec<String> {
    let others = group.others.iter().filter(|(_, driver)| blocks_binding(driver.as_deref()));
    others
        .map(|(bdf, driver)| format!("{bdf} is bound to {}", driver.as_deref().unwrap_or("no driver")))
        .collect()
}

fn not_viable(bdf: Bdf, host: &Host) -> VfioError {
    let group = host.group(bdf);
    let mut others = group.as_ref().map(blocking_devices).unwrap_or_default().join(", ");
    if others.is_empty() {
        others = "another of its devices has a driver of the host".into();
    }
    VfioError::NotViable { bdf, group: group.map_or("?".into(), |g| g.id), others }
}

/// Checks the limit before anything is pinned, because the kernel's error (ENOMEM) gives neither the amount nor the fix.
fn check_memlock(host: &Host, bdf: Bdf, guest: &Guest) -> Result<(), VfioError> {
    let need: u64 = guest.memory.iter().map(|region| region.len()).sum();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills in the struct.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return Ok(());
    }
    let status = std::fs::read_to_string(host.path("proc/self/status")).unwrap_or_default();
    enough_memlock(bdf, need, limit.rlim_cur, &status)
}

fn enough_memlock(bdf: Bdf, need: u64, limit: u64, status: &str) -> Result<(), VfioError> {
    if limit >= need || may_lock_all(status) {
        return Ok(());
    }
    Err(VfioError::Memlock { bdf, need: need >> 20, limit: limit >> 20, kib: need >> 10 })
}

/// Whether a process with this /proc/self/status has CAP_IPC_LOCK (bit 14).
fn may_lock_all(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps & 1 << 14 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::testing::host_tree::Tree;

    #[test]
    fn the_capability_to_lock_memory_is_read_from_the_status_file() {
        assert!(may_lock_all("Name:\tx\nCapInh:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_all("CapEff:\t0000000000003fff\n"));
        assert!(!may_lock_all(""));
    }

    #[test]
    fn too_little_lockable_memory_is_reported_with_the_limit_that_is_needed() {
        let bdf: Bdf = "00:03.0".parse().unwrap();
        let answer = |limit, status| enough_memlock(bdf, 512 << 20, limit, status).map_err(|e| e.to_string());
        let expected = "guest RAM of 512 MiB must be locked for 0000:00:03.0's DMA but the limit is 8 MiB: raise it \
                        (`ulimit -l 524288`, or LimitMEMLOCK= in systemd), or run as root";
        assert_eq!(answer(8 << 20, "CapEff:\t0000000000000000\n"), Err(expected.into()));
        assert_eq!(answer(8 << 20, "CapEff:\t0000000000004000\n"), Ok(()));
        assert_eq!(answer(512 << 20, ""), Ok(()));
    }

    #[test]
    fn a_file_that_may_not_be_opened_is_named_with_the_fix_and_one_in_use_is_reported() {
        let (bdf, group) = ("00:03.0".parse().unwrap(), Path::new("/dev/vfio/3"));
        let answer = |errno| open_error(bdf, group, io::Error::from_raw_os_error(errno)).to_string();
        let expected = "no permission for /dev/vfio/3: run as root, or make the file yours (chown)";
        assert_eq!(answer(libc::EACCES), expected);
        let expected = "0000:00:03.0 is used by another process already (a second VMM?): end that one first";
        assert_eq!(answer(libc::EBUSY), expected);
    }

    #[test]
    fn each_obstacle_to_opening_is_reported_with_its_fix() {
        let bdf: Bdf = "00:03.0".parse().unwrap();
        let answer = |tree: &Tree| Dma::new(tree.host(), None).open(bdf).unwrap_err().to_string();
        let tree = Tree::new();
        assert!(answer(&tree).starts_with("no PCI device 0000:00:03.0"));
        tree.device("0000:00:03.0", None, Some("vfio-pci"));
        assert!(answer(&tree).contains("is in no IOMMU group") && answer(&tree).contains("intel_iommu=on"));
        let tree = Tree::new();
        tree.device("0000:00:03.0", Some(3), Some("nvme"));
        assert_eq!(
            answer(&tree),
            "0000:00:03.0 is bound to the driver nvme: run `doorbell vfio bind 0000:00:03.0` first"
        );
        let tree = Tree::new();
        tree.device("0000:00:03.0", Some(3), Some("vfio-pci"));
        assert!(answer(&tree).contains("dev/vfio/vfio failed"), "{}", answer(&tree));
        tree.device("0000:00:04.0", Some(3), Some("e1000e"));
        assert_eq!(
            not_viable(bdf, &tree.host()).to_string(),
            "IOMMU group 3 of 0000:00:03.0 is not viable: 0000:00:04.0 is bound to e1000e; bind these to vfio-pci, too \
             (`doorbell vfio bind`)"
        );
    }
}
