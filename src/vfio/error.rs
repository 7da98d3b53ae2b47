use std::io;
use std::path::PathBuf;

use crate::kvm::KvmError;
use crate::vfio::{Bdf, InvalidBdf};

/// Why a passed-through device does not work. Each message is one sentence, with the fix.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// Not a PCI address.
    #[error(transparent)]
    InvalidBdf(#[from] InvalidBdf),
    /// No such function.
    #[error("no PCI device {0}: `doorbell vfio list` shows all devices")]
    NoDevice(Bdf),
    /// The platform has no IOMMU, or it is off.
    #[error(
        "{0} is in no IOMMU group, so it cannot be given to a guest: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and \
         in the kernel (intel_iommu=on)"
    )]
    NoIommu(Bdf),
    /// The module is missing.
    #[error("the vfio-pci driver is not loaded: run `modprobe vfio-pci` as root")]
    NoVfioPci,
    /// Bound to another driver.
    #[error("{bdf} is bound to {}: run `doorbell vfio bind {bdf}` first", driven(.driver))]
    NotBound {
        /// The device.
        bdf: Bdf,
        /// Its present driver.
        driver: Option<String>,
    },
    /// Not bound to vfio-pci.
    #[error("{bdf} is bound to {}, not to vfio-pci: there is nothing to unbind", driven(.driver))]
    NotOurs {
        /// The device.
        bdf: Bdf,
        /// Its present driver.
        driver: Option<String>,
    },
    /// The host uses it.
    #[error("{bdf} is in use on this host ({reason}): {fix}, then try again")]
    InUse {
        /// The device.
        bdf: Bdf,
        /// Who uses it.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// A driver did not take the device.
    #[error("the driver {driver} did not take {bdf}{}: see dmesg; {left}", because(.source))]
    Refused {
        /// The device.
        bdf: Bdf,
        /// The driver.
        driver: String,
        /// The kernel's error, if there was one.
        source: Option<io::Error>,
        /// The present state of the device, as a clause.
        left: String,
    },
    /// Other devices of the group have host drivers.
    #[error(
        "IOMMU group {group} of {bdf} is not viable: {others}; bind these to vfio-pci, too (`doorbell vfio bind`)"
    )]
    NotViable {
        /// The device.
        bdf: Bdf,
        /// Its group.
        group: String,
        /// The others and their drivers.
        others: String,
    },
    /// Another process has opened it.
    #[error("{bdf} is used by another process already (a second VMM?): end that one first")]
    Busy {
        /// The device.
        bdf: Bdf,
    },
    /// No permission.
    #[error("no permission for {}: run as root, or make the file yours (chown)", path.display())]
    Permission {
        /// What could not be opened.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {} failed: {source}", path.display())]
    File {
        /// "reading", "writing", "opening".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// Guest RAM cannot be locked.
    #[error(
        "guest RAM of {need} MiB must be locked for {bdf}'s DMA but the limit is {limit} MiB: raise it (`ulimit -l {kib}`, \
         or LimitMEMLOCK= in systemd), or run as root"
    )]
    Memlock {
        /// The device.
        bdf: Bdf,
        /// MiB of RAM.
        need: u64,
        /// MiB allowed.
        limit: u64,
        /// What to raise it to, in KiB.
        kib: u64,
    },
    /// A VFIO or iommufd ioctl failed.
    #[error("{ioctl} for {what} failed: {source}")]
    Ioctl {
        /// Its name, as in linux/vfio.h.
        ioctl: &'static str,
        /// What it was for.
        what: String,
        /// errno.
        source: io::Error,
    },
    /// The device lacks something.
    #[error("{bdf} {what}")]
    Device {
        /// The device.
        bdf: Bdf,
        /// The sentence without its subject, the device.
        what: String,
    },
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

fn driven(driver: &Option<String>) -> String {
    driver.as_ref().map_or("no driver".into(), |name| format!("the driver {name}"))
}

fn because(source: &Option<io::Error>) -> String {
    source.as_ref().map_or(String::new(), |error| format!(" ({error})"))
}

impl VfioError {
    /// A file that could not be opened, read or written. A missing permission is an error of its own.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> VfioError {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => VfioError::Permission { path },
            _ => VfioError::File { what, path, source },
        }
    }
}
