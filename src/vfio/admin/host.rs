use std::fs;
use std::path::{Path, PathBuf};

use crate::pci::{MSIX_CAPABILITY, capabilities};
use crate::vfio::{Bdf, VfioError};

/// The driver through which user space uses a device.
pub const VFIO_PCI: &str = "vfio-pci";

#[cfg(test)]
pub(super) type TestKernel = std::sync::Arc<dyn Fn(&Path, &str) + Send + Sync>;

/// The host's file trees: /sys, /proc, /dev, and /run for records that outlive a process. Tests use a fake tree.
#[derive(Clone)]
pub struct Host {
    root: PathBuf,
    /// In tests: what the fake kernel does after a write.
    #[cfg(test)]
    pub(in crate::vfio) kernel: Option<TestKernel>,
}

/// One PCI function of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Address.
    pub bdf: Bdf,
    /// Vendor and device ID.
    pub id: (u16, u16),
    /// Class, subclass, programming interface.
    pub class: u32,
    /// Driver.
    pub driver: Option<String>,
    /// Its IOMMU group, with the other devices in it.
    pub group: Option<Group>,
    /// Vectors of its MSI-X table; `None` if it has none, or only root may read it.
    pub msix: Option<u16>,
}

/// An IOMMU group: the smallest set of devices that the IOMMU can isolate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: String,
    /// The other devices in it, with their drivers.
    pub others: Vec<(Bdf, Option<String>)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.root.display())
    }
}

impl Host {
    /// The host that doorbell runs on.
    pub fn real() -> Host {
        Host::at("/")
    }

    /// A host whose file trees are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Host {
        Host {
            root: root.into(),
            #[cfg(test)]
            kernel: None,
        }
    }

    /// An absolute path (without its slash) on that host.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Writes an attribute.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), VfioError> {
        fs::write(path, text).map_err(|e| VfioError::file("writing", path, e))?;
        #[cfg(test)]
        if let Some(kernel) = &self.kernel {
            kernel(path, text);
        }
        Ok(())
    }

    pub(super) fn device_dir(&self, bdf: Bdf) -> PathBuf {
        self.path(format!("sys/bus/pci/devices/{bdf}"))
    }

    pub(super) fn driver_dir(&self, name: &str) -> PathBuf {
        self.path(format!("sys/bus/pci/drivers/{name}"))
    }

    /// All PCI functions, in order of address.
    ///
    /// # Errors
    /// The host has no PCI.
    pub fn devices(&self) -> Result<Vec<HostDevice>, VfioError> {
        let dir = self.path("sys/bus/pci/devices");
        let entries = fs::read_dir(&dir).map_err(|e| VfioError::file("reading", &dir, e))?;
        let mut all: Vec<Bdf> =
            entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        all.sort();
        // A device that was unplugged meanwhile is left out.
        Ok(all.into_iter().filter_map(|bdf| self.device(bdf).ok()).collect())
    }

    /// One function.
    ///
    /// # Errors
    /// There is no such function.
    pub fn device(&self, bdf: Bdf) -> Result<HostDevice, VfioError> {
        let dir = self.device_dir(bdf);
        if !dir.exists() {
            return Err(VfioError::NoDevice(bdf));
        }
        let number = |name: &str| {
            let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0)
        };
        Ok(HostDevice {
            bdf,
            id: (number("vendor") as u16, number("device") as u16),
            class: number("class"),
            driver: self.driver(bdf),
            group: self.group(bdf),
            msix: msix_vectors(&fs::read(dir.join("config")).unwrap_or_default()),
        })
    }

    /// The driver that `bdf` has now.
    pub fn driver(&self, bdf: Bdf) -> Option<String> {
        link_name(&self.device_dir(bdf).join("driver"))
    }

    /// The IOMMU group of `bdf`.
    pub fn group(&self, bdf: Bdf) -> Option<Group> {
        let link = self.device_dir(bdf).join("iommu_group");
        let id = link_name(&link)?;
        let members = fs::read_dir(link.join("devices")).ok()?.flatten();
        let mut others: Vec<_> = members
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|&other| other != bdf)
            .map(|other| (other, self.driver(other)))
            .collect();
        others.sort();
        Some(Group { id, others })
    }

    /// The name under /dev/vfio/devices, on kernels with VFIO character devices (6.6 and later).
    pub fn cdev(&self, bdf: Bdf) -> Option<String> {
        let names = fs::read_dir(self.device_dir(bdf).join("vfio-dev")).ok()?.flatten();
        names.filter_map(|e| e.file_name().into_string().ok()).find(|name| name.starts_with("vfio"))
    }
}

pub(super) fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

fn msix_vectors(config: &[u8]) -> Option<u16> {
    let byte = |at: u8| config.get(usize::from(at)).copied().unwrap_or(0);
    let (_, at) = capabilities(byte).into_iter().find(|&(id, _)| id == MSIX_CAPABILITY)?;
    // The kernel shows only 64 bytes of the config file to users other than root.
    let control = config.get(usize::from(at) + 2..)?.first_chunk()?;
    Some((u16::from_le_bytes(*control) & 0x7ff) + 1)
}

/// Whether a device with this driver blocks the others of its IOMMU group, because its driver may do DMA. PCI ports do
/// none (`vfio_dev_viable` in drivers/vfio, `driver_managed_dma` on newer kernels).
pub fn blocks_binding(driver: Option<&str>) -> bool {
    // Vendor variants of vfio-pci have "vfio" in their names.
    driver.is_some_and(|name| !name.contains("vfio") && !matches!(name, "pcieport" | "pci-stub" | "shpchp"))
}

/// The name of a function's class (PCI Code and ID Assignment), for common classes.
pub fn class_name(class: u32) -> &'static str {
    match class >> 8 {
        // Class 00 (older than class codes) and class ff (no class fits) do not describe the function.
        // QEMU gives 00ff to its edu device and to virtio devices that are neither disk nor network card.
        0x0000..=0x00ff => "unclassified",
        0xff00..=0xffff => "no class",
        0x0100 => "SCSI storage",
        0x0101 => "IDE storage",
        0x0104 => "RAID storage",
        0x0106 => "SATA storage",
        0x0108 => "NVMe storage",
        0x0180 => "storage",
        0x0200 => "Ethernet",
        0x0280 => "network",
        0x0300 | 0x0302 | 0x0380 => "display",
        0x0403 => "audio",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0805 => "SD host",
        0x0c03 => "USB",
        0x0c05 => "SMBus",
        _ => "other",
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
