//! Files that a verb writes.
//!
//! All follow the same rules. `-` is standard output. A plain file is written under another name, or without one, and
//! then replaces the target as a whole: an old result stays until the new one is complete, and no half-written file is
//! left, whatever ends the process. Pipes and devices are written as streams; nothing below /dev and /proc is ever
//! replaced. An output that cannot be written is reported before the work begins.

use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::out_place::{Place, resolve};
use super::{Failure, printed};
use crate::host::cleanup::Leftover;

/// An output that was checked before the work began.
#[derive(Debug)]
pub(super) struct OutFile {
    flag: &'static str,
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    Stdout,
    /// A pipe, a device, or a descriptor that the process inherited.
    Stream(File),
    /// A plain file in a directory where no other can be made. Truncated only when its new content is ready.
    InPlace(File),
    Beside(Beside),
}

/// A file that will replace `target`.
#[derive(Debug)]
struct Beside {
    file: File,
    target: PathBuf,
    /// Its name until then, if the file system has no O_TMPFILE.
    name: Option<(PathBuf, Leftover)>,
}

impl OutFile {
    /// Checks that `path`, which `flag` named, can be written, and opens it.
    pub(super) fn open(flag: &'static str, path: &Path) -> Result<OutFile, Failure> {
        let to = if path == Path::new("-") { Ok(To::Stdout) } else { open(path) };
        let to = to.map_err(|error| failure(flag, path, &error))?;
        Ok(OutFile { flag, path: path.into(), to })
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in which it takes its place at the end; `None`: everything it needs is open.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.to {
            To::Beside(beside) => Some(beside.target.parent().unwrap_or(Path::new("/"))),
            _ => None,
        }
    }

    /// Whether this is standard output; other text then goes to standard error.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.to, To::Stdout)
    }

    /// Writes `value` as JSON on one line.
    pub(super) fn write_json(self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(|out| serde_json::to_writer(&mut *out, value).map(|()| out.write_all(b"\n"))?)
    }

    /// Writes `value` as indented JSON.
    pub(super) fn write_pretty_json(self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(|out| serde_json::to_writer_pretty(&mut *out, value).map(|()| out.write_all(b"\n"))?)
    }

    /// Writes `text`.
    pub(super) fn write_text(self, text: &str) -> Result<(), Failure> {
        self.write(|out| out.write_all(text.as_bytes()))
    }

    fn write(self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        let filled = |fd: BorrowedFd<'_>| {
            let mut out = BufWriter::new(BlockingWriter(fd));
            fill(&mut out)?;
            out.flush()
        };
        let written = match self.to {
            To::Stdout => return printed(filled(io::stdout().as_fd())),
            To::Stream(file) => match filled(file.as_fd()) {
                // A reader that closed the pipe is not a failure, as with standard output.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            },
            To::InPlace(file) => file.set_len(0).and_then(|()| filled(file.as_fd())),
            To::Beside(beside) => filled(beside.file.as_fd()).and_then(|()| beside.take_place()),
        };
        written.map_err(|error| failure(self.flag, &self.path, &error))
    }
}

/// Waits for room if the descriptor is non-blocking: another program that shares it may have set that mode.
pub(super) struct BlockingWriter<'a>(pub(super) BorrowedFd<'a>);

impl Write for BlockingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.0.as_raw_fd();
        loop {
            // SAFETY: the pointer and the length are those of `bytes`.
            let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
            let error = match usize::try_from(n) {
                Ok(n) => return Ok(n),
                Err(_) => io::Error::last_os_error(),
            };
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            let mut room = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&mut room, 1, -1) };
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<To> {
    let path = match resolve(path)? {
        Place::Descriptor(1) => return Ok(To::Stdout),
        Place::Descriptor(number) => return descriptor(number).map(To::Stream),
        Place::Path(path) => path,
    };
    // The files there belong to the system, except in /dev/shm.
    let is_special =
        ["/dev", "/proc", "/sys"].iter().any(|top| path.starts_with(top)) && !path.starts_with("/dev/shm");
    match fs::metadata(&path) {
        Ok(there) if there.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(there) if there.file_type().is_block_device() => Err(io::Error::other("it is a block device")),
        Ok(there) if !there.is_file() => stream(&path).map(To::Stream),
        Ok(there) => {
            let now = File::options().write(true).open(&path)?;
            if is_special {
                return Ok(To::InPlace(now));
            }
            Ok(Beside::new(path, Some(&there)).map_or(To::InPlace(now), To::Beside))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_special => {
            Beside::new(path, None).map(To::Beside)
        }
        Err(error) => Err(error),
    }
}

/// A descriptor that this process was started with, as in /dev/fd/3.
fn descriptor(number: i32) -> io::Result<File> {
    // SAFETY: no pointers; a descriptor that is not open is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, as seen above, and borrowed for the duplication only.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().map(File::from)
}

/// A pipe or a device. Opening a FIFO that nobody reads would wait for ever.
fn stream(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => io::Error::other("nobody reads from it; start its reader first"),
        _ => error,
    })?;
    // SAFETY: no pointers. The description is ours alone.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Beside {
    fn new(target: PathBuf, old: Option<&Metadata>) -> io::Result<Beside> {
        let directory = target.parent().unwrap_or(Path::new("/"));
        let nameless = File::options().write(true).custom_flags(libc::O_TMPFILE).open(directory);
        let (file, name) = match nameless {
            Ok(file) => (file, None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let path = free_name(directory);
                let leftover = Leftover::new(&path);
                (File::options().write(true).create_new(true).open(&path)?, Some((path, leftover)))
            }
            Err(error) => return Err(error),
        };
        if let Some(old) = old {
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
            // Only root can change the owner; other users own the files that they replace.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        Ok(Beside { file, target, name })
    }

    fn take_place(mut self) -> io::Result<()> {
        let (path, _leftover) = match self.name.take() {
            Some(name) => name,
            None => {
                let path = free_name(self.target.parent().unwrap_or(Path::new("/")));
                let leftover = Leftover::new(&path);
                give_name(&self.file, &path)?;
                (path, leftover)
            }
        };
        fs::rename(&path, &self.target).inspect_err(|_| _ = fs::remove_file(&path))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.name {
            let _ = fs::remove_file(path);
        }
    }
}

fn free_name(directory: &Path) -> PathBuf {
    use std::hash::{BuildHasher, RandomState};
    directory.join(format!(".doorbell-{:016x}", RandomState::new().hash_one(std::process::id())))
}

/// linkat(2) of a file without a name.
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: two valid strings.
    let done = unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn failure(flag: &str, path: &Path, error: &io::Error) -> Failure {
    Failure { code: 4, message: format!("{flag}: {} cannot be written: {error}", path.display()) }
}

#[cfg(test)]
#[path = "out_file_tests.rs"]
mod tests;
