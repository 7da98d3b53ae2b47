//! Resolves the name of an output, and refuses a file that the run uses already.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// What a name stands for, after symbolic links.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A descriptor of this process: /dev/stdout, /dev/fd/3.
    Descriptor(i32),
    /// A file that exists, or that can be made.
    Path(PathBuf),
}

/// Follows links one by one: the last link of /dev/stdout has no file name as target, and a dangling link names the file to make.
pub(super) fn resolve(path: &Path) -> io::Result<Place> {
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize()?;
        let here = parent.join(name);
        if parent == own
            && let Some(number) = name.to_str().and_then(|name| name.parse().ok())
        {
            return Ok(Place::Descriptor(number));
        }
        match fs::read_link(&here) {
            Ok(link) => path = parent.join(link),
            Err(_) => return Ok(Place::Path(here)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// The files of one run, so that none is used for two things.
#[derive(Default)]
pub(super) struct FilesInUse(Vec<(Identity, String)>);

#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    File(u64, u64),
    /// A block device, by its number: it may have several names.
    Disk(u64),
    /// A file that does not exist yet, by its name.
    New(PathBuf),
    Stdout,
}

impl Identity {
    /// `None` for what may be used twice (/dev/null, a terminal), and if stat(2) fails.
    fn of(path: &Path) -> Option<Identity> {
        if path == Path::new("-") {
            return Some(Identity::Stdout);
        }
        let path = match resolve(path).ok()? {
            Place::Descriptor(1) => return Some(Identity::Stdout),
            Place::Descriptor(_) => path.to_path_buf(),
            Place::Path(path) => path,
        };
        match fs::metadata(&path) {
            Ok(there) if there.is_file() => Some(Identity::File(there.dev(), there.ino())),
            Ok(there) if there.file_type().is_block_device() => Some(Identity::Disk(there.rdev())),
            Ok(_) => None,
            Err(_) => Some(Identity::New(path)),
        }
    }
}

impl FilesInUse {
    /// Records that the run reads `path`, or uses it as a disk; `flag` named it.
    pub(super) fn input(&mut self, flag: &str, path: &Path) {
        self.0.extend(Identity::of(path).map(|identity| (identity, flag.to_string())));
    }

    /// Records that the run will write `path`; `flag` named it.
    ///
    /// # Errors
    /// The run uses that file already: writing would destroy it.
    pub(super) fn output(&mut self, flag: &str, path: &Path) -> Result<(), Failure> {
        let Some(identity) = Identity::of(path) else { return Ok(()) };
        if let Some((_, other)) = self.0.iter().find(|(used, _)| *used == identity) {
            let path = path.display();
            return Err(Failure::usage(format!(
                "{flag} and {other} name the same file, {path}: use two files"
            )));
        }
        self.0.push((identity, flag.to_string()));
        Ok(())
    }
}
