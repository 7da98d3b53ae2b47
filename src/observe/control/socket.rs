use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another doorbell may take to make its socket in the same directory.
const LOCK_TIME: Duration = Duration::from_secs(2);

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A running VM listens on it.
    #[error("control socket {0} belongs to a running VM; use another name")]
    InUse(PathBuf),
    /// Another file has this name.
    #[error("control socket {0}: another file has this name; remove it or use another name")]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("control socket {path} cannot be made: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
}

/// Makes the socket, in the place of one that a dead VM left; returns it and its device and inode.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, (u64, u64)), ServeError> {
    let fail = |source| ServeError::Io { path: path.into(), source };
    // Held until the socket listens: of two VMs that find the same dead socket, the second would otherwise remove the
    // first one's.
    let _lock = lock_directory(path).map_err(fail)?;
    make_room(path)?;
    let listener = bind(path).map_err(fail)?;
    Ok((listener, identity(path).map_err(fail)?))
}

/// Locks the directory of `path` against other doorbells, until the file is dropped (flock(2)).
fn lock_directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new(".")))?;
    let deadline = Instant::now() + LOCK_TIME;
    loop {
        // SAFETY: no pointers; the descriptor is open.
        if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(directory);
        }
        match io::Error::last_os_error() {
            // Whoever may read the directory may lock it, so the wait has a limit.
            e if e.raw_os_error() == Some(libc::EWOULDBLOCK) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            e if e.raw_os_error() == Some(libc::EWOULDBLOCK) => {
                return Err(io::Error::other("another process locks its directory (flock)"));
            }
            e => return Err(e),
        }
    }
}

/// Frees `path`: removes a socket on which nobody listens, and refuses any other file.
fn make_room(path: &Path) -> Result<(), ServeError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ServeError::Io { path: path.into(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Also if we may not connect to it.
        _ => Err(ServeError::InUse(path.into())),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // The umask must hold during bind(2): whoever can connect can switch the VM.
    // SAFETY: takes no pointer and cannot fail.
    let mask = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    listener
}

/// Returns device and inode of the file called `path`.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
