//! The exits of another process's VM, as KVM counts them for any VMM.

use std::fs;
use std::path::{Path, PathBuf};

/// Where KVM has a folder for each VM, named PROCESS-DESCRIPTOR (virt/kvm/kvm_main.c, kvm_create_vm_debugfs). Root only.
const DEBUGFS: &str = "/sys/kernel/debug/kvm";

/// All exits of the VM of process `id`; `None`: this host does not report them.
pub fn of_process(id: u32) -> Option<u64> {
    read(&folder(Path::new(DEBUGFS), id)?)
}

fn folder(root: &Path, id: u32) -> Option<PathBuf> {
    let prefix = format!("{id}-");
    let is_its = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    Some(fs::read_dir(root).ok()?.flatten().find(is_its)?.path())
}

fn read(folder: &Path) -> Option<u64> {
    fs::read_to_string(folder.join("exits")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_found_by_its_process() {
        let root = tempfile::tempdir().unwrap();
        for (name, exits) in [("12-9", "7\n"), ("123-11", "9\n")] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("exits"), exits).unwrap();
        }
        let exits = |id| read(&folder(root.path(), id)?);
        assert_eq!((exits(12), exits(123), exits(1)), (Some(7), Some(9), None));
        assert_eq!(folder(Path::new("/no/such"), 12), None);
    }
}
