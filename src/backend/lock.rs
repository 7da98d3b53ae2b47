use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks the whole file without waiting: shared for readers, exclusive for a writer. Returns `false` if another open
/// file description holds a conflicting lock. Uses open-file-description locks (fcntl(2), `F_OFD_SETLK`), because QEMU
/// uses them too, and because two opens in one process conflict. The lock ends when the last descriptor of the open
/// file description is closed.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    // Length 0: from the first byte to the end, even if the file grows. l_pid must be 0.
    let region = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: fcntl reads `region`, which outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &region) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}
