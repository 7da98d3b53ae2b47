//! A made-up machine for tests: its /sys, /proc and /dev, and a kernel that binds drivers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::vfio::{Bdf, Host};

/// A file tree that goes away with the test.
pub struct Tree {
    dir: tempfile::TempDir,
}

/// 256 bytes of config space with one capability: MSI-X of `vectors`.
pub fn config_with_msix(vectors: u16) -> Vec<u8> {
    let mut config = vec![0; 256];
    config[0x06] = 0x10;
    config[0x34] = 0x40;
    config[0x40] = 0x11;
    config[0x42..0x44].copy_from_slice(&(vectors - 1).to_le_bytes());
    config
}

impl Tree {
    pub fn new() -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        for dir in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers",
            "sys/class/block",
            "sys/class/net",
            "proc/self",
            "dev",
        ] {
            fs::create_dir_all(tree.path(dir)).unwrap();
        }
        tree.file("proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
        tree.file("proc/swaps", "Filename Type Size Used Priority\n");
        tree.file("sys/bus/pci/drivers_probe", "");
        tree
    }

    pub fn host(&self) -> Host {
        Host::at(self.dir.path())
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.path(target), path).unwrap();
    }

    pub fn driver(&self, name: &str) {
        self.file(&format!("sys/bus/pci/drivers/{name}/bind"), "");
        self.file(&format!("sys/bus/pci/drivers/{name}/unbind"), "");
    }

    /// A device at `bdf` in IOMMU group `group`, with `driver`.
    pub fn device(&self, bdf: &str, group: Option<u32>, driver: Option<&str>) {
        let dir = format!("sys/devices/pci0000:00/{bdf}");
        for (name, text) in
            [("vendor", "0x1b36"), ("device", "0x0010"), ("class", "0x010802"), ("driver_override", "")]
        {
            self.file(&format!("{dir}/{name}"), text);
        }
        self.file(&format!("{dir}/config"), config_with_msix(65));
        self.link(&format!("sys/bus/pci/devices/{bdf}"), &dir);
        if let Some(group) = group {
            self.link(&format!("{dir}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
            self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{bdf}"), &dir);
        }
        if let Some(driver) = driver {
            self.driver(driver);
            self.link(&format!("{dir}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
    }

    /// A host whose kernel follows unbind, bind and drivers_probe: `choice` is the driver that it finds without an override,
    /// and `refuses` the one whose probe fails.
    pub fn kernel(&self, choice: &'static str, refuses: Option<&'static str>) -> Host {
        let root = self.dir.path().to_owned();
        let mut host = self.host();
        host.kernel = Some(Arc::new(move |path: &Path, text: &str| {
            let Ok(bdf) = text.parse::<Bdf>() else { return };
            let device = root.join(format!("sys/bus/pci/devices/{bdf}"));
            let link = device.join("driver");
            let wanted = match path.file_name().unwrap().to_str().unwrap() {
                "unbind" => return fs::remove_file(link).unwrap(),
                "drivers_probe" => match fs::read_to_string(device.join("driver_override")).unwrap().trim() {
                    "" => choice.to_owned(),
                    name => name.to_owned(),
                },
                "bind" => path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned(),
                _ => return,
            };
            if Some(&*wanted) != refuses && !link.exists() {
                symlink(root.join(format!("sys/bus/pci/drivers/{wanted}")), link).unwrap();
            }
        }));
        host
    }
}
