use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kvm_ioctls::Cap;

use super::config::DISK_BYTES;
use crate::host::io_uring_available;
use crate::machine::open_kvm;

/// Optional features of this host. An `Err` says why the feature is missing.
pub(super) struct HostSupport {
    /// The file behind the file backends.
    pub scratch: Result<Scratch, String>,
    /// ioeventfds of length 0.
    pub any_length: Result<(), String>,
    /// irqfds with a resamplefd.
    pub resample: Result<(), String>,
    pub io_uring: Result<(), String>,
}

impl HostSupport {
    pub fn of_this_host() -> HostSupport {
        // Without KVM nothing runs at all, and the VM's constructor says why.
        let kvm = open_kvm().ok();
        let has = |cap, why: &str| match &kvm {
            Some(kvm) if !kvm.check_extension(cap) => Err(why.to_string()),
            _ => Ok(()),
        };
        HostSupport {
            scratch: Scratch::new(),
            any_length: has(
                Cap::IoeventfdNoLength,
                "this KVM lacks ioeventfds of length 0 (they came with Linux 4.4)",
            ),
            resample: has(
                Cap::IrqfdResample,
                "this KVM lacks irqfds with a resamplefd (they came with Linux 3.8)",
            ),
            io_uring: io_uring_available(),
        }
    }
}

/// The file behind the file backends; removed on drop.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, String> {
        let shm = Path::new("/dev/shm");
        let directory = if shm.is_dir() { shm.into() } else { std::env::temp_dir() };
        let path = directory.join(format!("doorbell-bench-{}", std::process::id()));
        let fail = |e| format!("cannot create its file in {}: {e}", directory.display());
        let file = File::create_new(&path).map_err(fail)?;
        // The file exists now: `Drop` removes it even if the next line fails.
        let scratch = Scratch(path);
        file.set_len(DISK_BYTES).map_err(fail)?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_its_owner() {
        let scratch = Scratch::new().expect("a directory for temporary files");
        let path = scratch.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().len(), DISK_BYTES);
        drop(scratch);
        assert!(!path.exists());
    }
}
