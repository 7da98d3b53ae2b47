//! The files that must not outlive the process, even if a signal ends it.

use crate::host::Locked;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

static FILES: Mutex<Files> = Mutex::new(Files { next: 0, paths: BTreeMap::new() });

struct Files {
    next: u64,
    paths: BTreeMap<u64, PathBuf>,
}

fn files() -> MutexGuard<'static, Files> {
    FILES.locked()
}

/// A registered file: [`remove_all`] removes it while this value exists. Dropping the value keeps the file.
#[derive(Debug)]
pub struct Leftover(u64);

impl Leftover {
    /// Registers the file `path`.
    pub fn new(path: &Path) -> Leftover {
        let mut files = files();
        let number = files.next;
        files.next += 1;
        files.paths.insert(number, path.into());
        Leftover(number)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        files().paths.remove(&self.0);
    }
}

/// Removes all registered files. For a process that ends without running destructors.
pub fn remove_all() {
    for path in files().paths.values() {
        let _ = fs::remove_file(path);
    }
}
