use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Answer, Call, PROTOCOL, Refusal, Request};

/// How long a VM may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer taken, a trace of many queues.
const MAX_ANSWER: u64 = 1 << 30;

/// Why a VM could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing there.
    #[error("there is no control socket {0}; was the VM started with --control {0}?")]
    NoSocket(PathBuf),
    /// Something there, but no socket.
    #[error("{0} is no socket; it takes the one that the VM was given with --control")]
    NotASocket(PathBuf),
    /// The VM behind it is gone.
    #[error("the VM behind {0} has ended")]
    Ended(PathBuf),
    /// Not for us.
    #[error("no permission to use {0}; it is for the user who runs the VM")]
    Permission(PathBuf),
    /// It ended, or closed the connection, in the middle.
    #[error("the VM behind {0} ended before it answered")]
    Gone(PathBuf),
    /// It runs, but closed the connection.
    #[error("the VM behind {0} runs but closed the connection; try again")]
    Closed(PathBuf),
    /// Its answer has no end.
    #[error("the answer of the VM behind {0} is longer than 1 GiB; trace with a smaller --buffer")]
    TooLong(PathBuf),
    /// It did not answer.
    #[error("the VM behind {0} has not answered for 10 s")]
    Silent(PathBuf),
    /// It is something else, or another version.
    #[error(
        "what answers at {0} is no doorbell of this version (control protocol {PROTOCOL}); use the VM's own doorbell"
    )]
    Foreign(PathBuf),
    /// It said no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// Anything else.
    #[error("control socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
}

/// A connection to a VM.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

/// Has something to read between two questions only if the VM has ended.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

impl Client {
    /// Connects to the VM at `path`.
    ///
    /// # Errors
    /// There is none, or not for us.
    pub fn connect(path: &Path) -> Result<Client, ControlError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ControlError::NoSocket(path.into()),
            // Also what connecting to anything else than a socket gives.
            io::ErrorKind::ConnectionRefused
                if fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket()) =>
            {
                ControlError::NotASocket(path.into())
            }
            io::ErrorKind::ConnectionRefused => ControlError::Ended(path.into()),
            io::ErrorKind::PermissionDenied => ControlError::Permission(path.into()),
            _ => ControlError::Io { path: path.into(), source },
        })?;
        let times =
            stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
        times.map_err(|source| ControlError::Io { path: path.into(), source })?;
        Ok(Client { path: path.into(), reader: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, ControlError> {
        let foreign = |_| ControlError::Foreign(self.path.clone());
        let mut line = serde_json::to_vec(&Call { doorbell: PROTOCOL, request }).map_err(foreign)?;
        line.push(b'\n');
        // A server that is full answers and closes without reading: its words count more than our error.
        let sent = self.reader.get_ref().write_all(&line);
        let mut text = Vec::new();
        let read = (&mut self.reader).take(MAX_ANSWER).read_until(b'\n', &mut text);
        if let Err(source) = read.and_then(|n| if n == 0 { sent.map(|()| 0) } else { Ok(n) }) {
            let path = self.path.clone();
            return Err(match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Silent(path),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.gone(),
                _ => ControlError::Io { path, source },
            });
        }
        if text.last() != Some(&b'\n') {
            return Err(match text.len() as u64 {
                MAX_ANSWER => ControlError::TooLong(self.path.clone()),
                _ => self.gone(),
            });
        }
        let answer: Answer<T> = serde_json::from_slice(&text).map_err(foreign)?;
        if let Some(refusal) = answer.error {
            return Err(ControlError::Refused(refusal));
        }
        if answer.doorbell != PROTOCOL {
            return Err(ControlError::Foreign(self.path.clone()));
        }
        answer.ok.ok_or_else(|| ControlError::Foreign(self.path.clone()))
    }

    /// The connection has ended: with the VM, unless that can be reached again.
    fn gone(&self) -> ControlError {
        match UnixStream::connect(&self.path) {
            Ok(_) => ControlError::Closed(self.path.clone()),
            Err(_) => ControlError::Gone(self.path.clone()),
        }
    }
}
