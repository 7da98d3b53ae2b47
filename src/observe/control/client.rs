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
/// Longest answer accepted, in bytes; a trace of many queues is long.
const MAX_ANSWER: u64 = 1 << 30;

/// Why a request to a VM failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such file.
    #[error("there is no control socket {0}; was the VM started with --control {0}?")]
    NoSocket(PathBuf),
    /// The file is not a socket.
    #[error("{0} is not a socket; name the one that the VM was started with (--control)")]
    NotASocket(PathBuf),
    /// Nobody listens on the socket.
    #[error("the VM behind {0} has ended")]
    Ended(PathBuf),
    /// Permission denied.
    #[error("no permission to use {0}; only the user who runs the VM may")]
    Permission(PathBuf),
    /// The connection broke, and the VM cannot be reached again.
    #[error("the VM behind {0} ended before it answered")]
    Gone(PathBuf),
    /// The VM closed the connection, but it can be reached.
    #[error("the VM behind {0} runs but closed the connection; try again")]
    Closed(PathBuf),
    /// The answer is too long.
    #[error("the answer of the VM behind {0} is longer than 1 GiB; trace with a smaller --buffer")]
    TooLong(PathBuf),
    /// No answer in time.
    #[error("the VM behind {0} did not answer within 10 s")]
    Silent(PathBuf),
    /// The answer is not of this protocol version.
    #[error(
        "{0} does not speak this version of the control protocol ({PROTOCOL}); use the doorbell that runs the VM"
    )]
    Foreign(PathBuf),
    /// The VM refused the request.
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

/// Readable between two requests only if the VM has ended.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

impl Client {
    /// Connects to the VM at `path`.
    ///
    /// # Errors
    /// There is no VM, or its socket belongs to another user.
    pub fn connect(path: &Path) -> Result<Client, ControlError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ControlError::NoSocket(path.into()),
            // connect(2) also fails with this error if the file is not a socket.
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

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, ControlError> {
        let foreign = |_| ControlError::Foreign(self.path.clone());
        let mut line = serde_json::to_vec(&Call { doorbell: PROTOCOL, request }).map_err(foreign)?;
        line.push(b'\n');
        // A server with too many clients answers and closes without reading. Its answer says more than our write error.
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

    /// The error for a broken connection: the VM has ended, unless it can be reached again.
    fn gone(&self) -> ControlError {
        match UnixStream::connect(&self.path) {
            Ok(_) => ControlError::Closed(self.path.clone()),
            Err(_) => ControlError::Gone(self.path.clone()),
        }
    }
}
