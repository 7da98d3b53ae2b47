//! Names of files that must not outlive the process, also when a signal ends it in the middle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static FILES: Mutex<Files> = Mutex::new(Files { next: 0, paths: BTreeMap::new() });

struct Files {
    next: u64,
    paths: BTreeMap<u64, PathBuf>,
}

fn files() -> MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that [`remove_all`] removes as long as this lives. Dropping it leaves the file alone.
#[derive(Debug)]
pub struct Leftover(u64);

impl Leftover {
    /// Notes the file `path`.
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

/// Removes what is left. For a process that ends without dropping anything.
pub fn remove_all() {
    for path in files().paths.values() {
        let _ = fs::remove_file(path);
    }
}
