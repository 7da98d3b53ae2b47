use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The bytes by which QEMU tells other programs what it does with an image (`block/file-posix.c`): a read lock on a byte of
/// the first kind says that it uses a permission, one of the second kind that nobody else may.
const USES: i64 = 100;
const SHARES_NOT: i64 = 200;
/// Permissions, by their bit in QEMU's `BLK_PERM_*`: the byte is that of its kind plus this.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Locks the file without waiting. A writer takes all of it. A reader takes what a reader in QEMU takes, and looks whether
/// QEMU writes. Returns `false` if another open file description holds a conflicting lock. Uses open-file-description locks
/// (fcntl(2), `F_OFD_SETLK`), because QEMU uses them too, and because two opens in one process conflict. The lock ends when
/// the last descriptor of the open file description is closed.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
    if exclusive {
        // Length 0: from the first byte to the end, even if the file grows.
        return take(file, libc::F_WRLCK, 0, 0);
    }
    for byte in [USES + READ, SHARES_NOT + WRITE, SHARES_NOT + RESIZE] {
        if !take(file, libc::F_RDLCK, byte, 1)? {
            return Ok(false);
        }
    }
    // After the locks: of two programs that start at once, at least one sees the other.
    for byte in [USES + WRITE, USES + RESIZE, SHARES_NOT + READ] {
        if is_held(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn region(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    let whence = libc::SEEK_SET as libc::c_short;
    // l_pid must be 0.
    libc::flock { l_type: kind as libc::c_short, l_whence: whence, l_start: start, l_len: len, l_pid: 0 }
}

fn take(file: &File, kind: libc::c_int, start: i64, len: i64) -> io::Result<bool> {
    let region = region(kind, start, len);
    // SAFETY: fcntl reads `region`, which outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &region) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file description has any lock on this byte.
fn is_held(file: &File, byte: i64) -> io::Result<bool> {
    let mut region = region(libc::F_WRLCK, byte, 1);
    // SAFETY: fcntl reads and fills in `region`.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut region) } {
        0 => Ok(libc::c_int::from(region.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_and_qemu_see_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        // As QEMU takes them, each for itself: read locks only.
        let qemu = |bytes: &[i64]| {
            let qemu = open();
            assert!(bytes.iter().all(|&byte| take(&qemu, libc::F_RDLCK, byte, 1).unwrap()));
            qemu
        };
        let writer = qemu(&[USES + READ, USES + WRITE, SHARES_NOT + WRITE]);
        assert!(!lock(&open(), false).unwrap() && !lock(&open(), true).unwrap());
        drop(writer);
        let reader = qemu(&[USES + READ, SHARES_NOT + WRITE, SHARES_NOT + RESIZE]);
        assert!(!lock(&open(), true).unwrap());
        let (ours, another) = (open(), open());
        assert!(lock(&ours, false).unwrap() && lock(&another, false).unwrap(), "readers share");
        drop(reader);
        // What QEMU asks before it writes: does anyone forbid it?
        assert!(is_held(&open(), SHARES_NOT + WRITE).unwrap());
        // And before it only reads.
        assert!(!is_held(&open(), SHARES_NOT + READ).unwrap() && !is_held(&open(), USES + WRITE).unwrap());
    }
}
