//! Files without names, in memory or on a disk; they disappear with the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file without a name. [`MemFile::path`] opens it again.
#[derive(Debug)]
pub struct MemFile(File);

impl MemFile {
    /// Makes a file in memory with these bytes.
    ///
    /// # Errors
    /// Memory or descriptors ran out.
    pub fn of(bytes: &[u8]) -> io::Result<MemFile> {
        let mut file = in_memory()?;
        file.write_all(bytes)?;
        Ok(MemFile(file))
    }

    /// Makes a sparse file in memory: `len` bytes that read as zeroes and take no space until they are written.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub fn sparse(len: u64) -> io::Result<MemFile> {
        let file = in_memory()?;
        file.set_len(len)?;
        Ok(MemFile(file))
    }

    /// Makes a file of `len` bytes in `directory`, or in memory. All bytes are written, so that reads find data and not holes.
    ///
    /// # Errors
    /// The directory's file system is full, or does not support O_TMPFILE.
    pub fn full(directory: Option<&Path>, len: u64) -> io::Result<MemFile> {
        let mut file = match directory {
            Some(directory) => {
                OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory)?
            }
            None => in_memory()?,
        };
        let mut pattern = vec![0; 1 << 20];
        // Pseudorandom bytes (xorshift), which no file system can store as a hole.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for word in pattern.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let mut left = len;
        while left > 0 {
            let now = left.min(pattern.len() as u64);
            file.write_all(&pattern[..now as usize])?;
            left -= now;
        }
        if directory.is_some() {
            file.sync_all()?;
        }
        Ok(MemFile(file))
    }

    /// The path by which this process can open it again.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// The path by which a child process can open it while this process has it open.
    pub fn path_for_child(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// The file itself.
    pub fn into_file(self) -> File {
        self.0
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// As for any read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn in_memory() -> io::Result<File> {
    // SAFETY: the name is a C string; the descriptor is checked and owned here.
    unsafe {
        let fd = libc::memfd_create(c"doorbell-bench".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_can_be_opened_again() {
        let file = MemFile::of(b"abc").unwrap();
        let mut again = OpenOptions::new().append(true).open(file.path()).unwrap();
        again.write_all(b"def").unwrap();
        assert_eq!(file.read().unwrap(), b"abcdef");
        File::create(file.path()).unwrap().write_all(b"x").unwrap();
        assert_eq!(file.read().unwrap(), b"x");
        assert_eq!(MemFile::sparse(100).unwrap().read().unwrap(), [0; 100]);
    }

    #[test]
    fn a_full_file_has_no_holes() {
        let len = (1 << 20) + 4096;
        for directory in [None, Some(std::env::temp_dir())] {
            let file = MemFile::full(directory.as_deref(), len).unwrap();
            let bytes = file.read().unwrap();
            assert_eq!(bytes.len() as u64, len);
            assert!(bytes.chunks(512).all(|sector| sector.iter().any(|&b| b != 0)));
        }
        assert!(MemFile::full(Some(Path::new("/nowhere")), 512).is_err());
    }
}
