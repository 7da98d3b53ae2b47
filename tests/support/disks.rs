//! Files and devices to be a guest's disks.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory in memory, gone when it is dropped.
pub fn directory() -> TempDir {
    let builder = || tempfile::Builder::new().prefix("doorbell-test.").to_owned();
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir()).expect("no temporary directory")
}

/// A sparse file of `len` bytes.
pub fn file(path: &Path, len: u64) {
    File::create(path).and_then(|file| file.set_len(len)).expect("cannot make a disk file");
}

/// A disk for O_DIRECT. Files in memory have none, so it is on a real file system or behind a loop device.
pub struct DirectDisk {
    path: PathBuf,
    looped: bool,
    _directory: TempDir,
}

impl DirectDisk {
    /// `None` where neither works.
    pub fn new(len: u64) -> Option<DirectDisk> {
        let on_disk = tempfile::Builder::new().prefix("direct.").tempdir_in(env!("CARGO_TARGET_TMPDIR")).ok();
        for directory in on_disk.into_iter().chain([directory()]) {
            let path = directory.path().join("disk");
            file(&path, len);
            if File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).is_ok() {
                return Some(DirectDisk { path, looped: false, _directory: directory });
            }
            if let Some(device) = attach(&path) {
                return Some(DirectDisk { path: device, looped: true, _directory: directory });
            }
        }
        None
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirectDisk {
    fn drop(&mut self) {
        if self.looped {
            let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
        }
    }
}

fn attach(file: &Path) -> Option<PathBuf> {
    let free = Command::new("losetup").arg("-f").output().ok().filter(|found| found.status.success())?;
    let device = PathBuf::from(String::from_utf8(free.stdout).ok()?.trim());
    Command::new("losetup").arg(&device).arg(file).status().ok()?.success().then_some(device)
}
