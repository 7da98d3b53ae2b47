use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kvm_ioctls::Cap;

use super::variants::{DISK_BYTES, Variant};
use crate::backend::BackendKind;
use crate::dataplane::CompletePath;
use crate::host::io_uring_available;
use crate::machine::open_kvm;
use crate::virtio::NotifyPath;

/// What this host has of the things that not every host has; each `Err` is a reason for people.
pub(super) struct HostSupport {
    /// A file for the file backends.
    pub scratch: Result<Scratch, String>,
    any_length: Result<(), String>,
    resample: Result<(), String>,
    io_uring: Result<(), String>,
}

impl HostSupport {
    pub fn of_this_host() -> HostSupport {
        // Without a KVM nothing runs at all, and making the machine says why.
        let kvm = open_kvm().ok();
        let has = |cap, why: &str| match &kvm {
            Some(kvm) if !kvm.check_extension(cap) => Err(why.to_string()),
            _ => Ok(()),
        };
        HostSupport {
            scratch: Scratch::new(),
            any_length: has(
                Cap::IoeventfdNoLength,
                "this KVM has no ioeventfds of length 0 (Linux 4.4 has them)",
            ),
            resample: has(
                Cap::IrqfdResample,
                "this KVM has no irqfds with a resamplefd (Linux 3.8 has them)",
            ),
            io_uring: io_uring_available(),
        }
    }

    /// Why `variant` cannot be measured here.
    pub fn lacks(&self, variant: &Variant) -> Option<String> {
        let length = matches!(variant.path.notify, NotifyPath::FastMmio | NotifyPath::Pio)
            .then_some(self.any_length.as_ref());
        let resample = (variant.path.complete == CompletePath::Resample).then_some(self.resample.as_ref());
        let uring = (variant.backend == BackendKind::IoUring).then_some(self.io_uring.as_ref());
        let scratch = variant.backend.uses_file().then(|| self.scratch.as_ref().map(|_| &()));
        [length, resample, uring, scratch].into_iter().flatten().find_map(|support| support.err().cloned())
    }
}

/// The disk behind the file backends, gone when dropped.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, String> {
        let shm = Path::new("/dev/shm");
        let directory = if shm.is_dir() { shm.into() } else { std::env::temp_dir() };
        let path = directory.join(format!("doorbell-bench-{}", std::process::id()));
        let fail = |e| format!("no file can be made for it in {}: {e}", directory.display());
        let file = File::create_new(&path).map_err(fail)?;
        // From here on it is ours to remove.
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
    use crate::bench;

    #[test]
    fn what_a_host_lacks_costs_only_the_rows_that_need_it() {
        let no = |why: &str| Err(why.to_string());
        let support = HostSupport {
            scratch: Err("file".into()),
            any_length: no("length"),
            resample: no("resample"),
            io_uring: no("uring"),
        };
        let lacks = |notify, complete, backend| {
            let path = bench::PathPair { notify, complete };
            support.lacks(&Variant {
                path,
                backend,
                poll_us: 0,
                thread: 0,
                moderation: crate::dataplane::Moderation::Off,
            })
        };
        use {CompletePath::*, NotifyPath::*};
        assert_eq!(lacks(Mmio, Irqfd, BackendKind::Null), None);
        assert_eq!(lacks(Exit, SignalMsi, BackendKind::Null), None);
        assert_eq!(lacks(Pio, Irqfd, BackendKind::Null).as_deref(), Some("length"));
        assert_eq!(lacks(Mmio, Resample, BackendKind::Null).as_deref(), Some("resample"));
        assert_eq!(lacks(Mmio, Irqfd, BackendKind::IoUring).as_deref(), Some("uring"));
        assert_eq!(lacks(Mmio, Irqfd, BackendKind::Sync).as_deref(), Some("file"));
    }

    #[test]
    fn the_file_goes_with_its_owner() {
        let scratch = Scratch::new().expect("a directory for temporary files");
        let path = scratch.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().len(), DISK_BYTES);
        drop(scratch);
        assert!(!path.exists());
    }
}
