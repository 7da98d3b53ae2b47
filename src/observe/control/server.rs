use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::switch::switch;
use super::{Answer, Call, MAX_REQUEST, PROTOCOL, Refusal, Request};
use crate::host::cleanup::Leftover;
use crate::host::thread::{self, OnDeath};
use crate::observe::trace::{Tracer, Tracing};
use crate::observe::{VmParts, inspect};

/// Most clients at a time.
const MAX_CLIENTS: usize = 8;
/// A request must be complete within this time from its first byte on. Between two requests a client may be silent
/// without limit, because a trace may last.
const REQUEST_TIME: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// A client must read some of its answer within this time.
const ANSWER_TIME: Duration = Duration::from_secs(5);

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

/// The control socket of a VM, and the threads that serve it. Drop ends them and removes the socket.
///
/// A client can delay only itself: it has its own thread, a limit on its line, and timeouts for reads and writes.
pub struct ControlServer {
    path: PathBuf,
    /// Device and inode, because another VM may have put its socket there meanwhile.
    identity: (u64, u64),
    listener: UnixListener,
    clients: Arc<Clients>,
    thread: Option<JoinHandle<()>>,
    /// Removes the socket, also when a signal ends the process at once.
    _name: Leftover,
}

/// The open connections, so that drop can end them.
struct Clients {
    open: Mutex<BTreeMap<u64, Client>>,
    on_death: OnDeath,
    /// The server is being dropped: accept fails because the listener is shut down.
    ending: AtomicBool,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Serves `parts` at `path`. Replaces a socket that a dead VM left there.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn start(
        path: &Path,
        parts: Arc<VmParts>,
        tracer: Arc<Tracer>,
        on_death: OnDeath,
    ) -> Result<ControlServer, ServeError> {
        let fail = |source| ServeError::Io { path: path.into(), source };
        make_room(path)?;
        let listener = bind(path).map_err(fail)?;
        let identity = identity(path).map_err(fail)?;
        let clients = Arc::new(Clients {
            on_death: on_death.clone(),
            open: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        let (accepting, all) = (listener.try_clone().map_err(fail)?, clients.clone());
        let serve = move || accept(&accepting, &all, &parts, &tracer);
        let thread = thread::spawn("control", on_death, serve).map_err(fail)?;
        Ok(ControlServer {
            path: path.into(),
            identity,
            listener,
            clients,
            thread: Some(thread),
            _name: Leftover::new(path),
        })
    }

    /// Makes its thread fail.
    #[cfg(test)]
    pub(super) fn break_listener(&self) {
        // SAFETY: a descriptor of ours.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
        self.clients.ending.store(true, Ordering::Release);
        // SAFETY: a descriptor of ours. It makes the accept of the thread fail.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let clients = std::mem::take(&mut *self.clients.open.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, client) in clients {
            let _ = client.stream.shutdown(Shutdown::Both);
            client.thread.map(JoinHandle::join);
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

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn accept(
    listener: &UnixListener,
    clients: &Arc<Clients>,
    parts: &Arc<VmParts>,
    tracer: &Arc<Tracer>,
) -> Result<(), String> {
    let mut number = 0;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                number += 1;
                clients.admit(number, stream, parts, tracer);
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED)) => {}
            // No file descriptors at present: the client waits in the backlog.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(_) if clients.ending.load(Ordering::Acquire) => return Ok(()),
            Err(error) => return Err(format!("accept failed: {error}")),
        }
    }
}

impl Clients {
    fn admit(self: &Arc<Self>, number: u64, stream: UnixStream, parts: &Arc<VmParts>, tracer: &Arc<Tracer>) {
        let times = stream.set_write_timeout(Some(ANSWER_TIME));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(kept) = times.and_then(|()| stream.try_clone()) else { return };
        if open.len() >= MAX_CLIENTS {
            let full =
                Refusal::new("busy", format!("the VM has {MAX_CLIENTS} clients already; try again later"));
            let _ = send::<()>(&stream, Err(full));
            return;
        }
        let (all, parts, tracer) = (self.clone(), parts.clone(), tracer.clone());
        let serve = move || {
            serve(&stream, &parts, &tracer);
            let _ = stream.shutdown(Shutdown::Both);
            // No entry any more if the server is being dropped; then drop joins this thread.
            all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            Ok(())
        };
        // The lock is held, so the thread cannot remove its entry before it is inserted.
        if let Ok(thread) = thread::spawn("control-client", self.on_death.clone(), serve) {
            open.insert(number, Client { stream: kept, thread: Some(thread) });
        }
    }
}

/// Serves one client until it leaves, exceeds a limit, or the VM ends.
fn serve(stream: &UnixStream, parts: &VmParts, tracer: &Arc<Tracer>) {
    // Dropped with the connection, which ends the recording.
    let mut tracing = None;
    while let Some(line) = read_line(stream) {
        let sent = match understand(&line) {
            Ok(request) => answer(stream, request, parts, tracer, &mut tracing),
            Err(refusal) => send::<()>(stream, Err(refusal)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one line; `None` at the end of the connection or after the timeout.
fn read_line(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut deadline = Instant::now();
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = (!line.is_empty()).then(|| left.max(Duration::from_millis(1)));
        stream.set_read_timeout(limit).ok()?;
        // Byte by byte, so that nothing of the next request is read; requests are short and rare.
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => return Some(line),
            Ok(1) if line.is_empty() => {
                deadline = Instant::now() + REQUEST_TIME;
                line.push(byte[0]);
            }
            Ok(1) if line.len() < MAX_REQUEST && Instant::now() < deadline => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1) => {
                let _ = send::<()>(
                    stream,
                    Err(Refusal::new("usage", format!("a request may have at most {MAX_REQUEST} bytes"))),
                );
                return None;
            }
            _ => return None,
        }
    }
}

fn understand(line: &[u8]) -> Result<Request, Refusal> {
    let usage = |message: String| Refusal::new("usage", message);
    let value: serde_json::Value = serde_json::from_slice(line)
        .map_err(|error| usage(format!("a request must be one line of JSON: {error}")))?;
    match value.get("doorbell").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(PROTOCOL) => {}
        Some(version) => {
            return Err(usage(format!(
                "this VM speaks version {PROTOCOL} of the control protocol, not {version}; use its doorbell"
            )));
        }
        None => {
            return Err(usage(format!("a request must contain {{\"doorbell\":{PROTOCOL},\"verb\":...}}")));
        }
    }
    let call: Call =
        serde_json::from_value(value).map_err(|error| usage(format!("unknown request: {error}")))?;
    Ok(call.request)
}

fn answer(
    stream: &UnixStream,
    request: Request,
    parts: &VmParts,
    tracer: &Arc<Tracer>,
    tracing: &mut Option<Tracing>,
) -> io::Result<()> {
    match request {
        Request::Inspect { section } => send(
            stream,
            parts.look(&section).ok_or_else(|| {
                let sections = inspect::SECTIONS.join(", ");
                Refusal::new("usage", format!("there is no section {section:?}; use one of {sections}, all"))
            }),
        ),
        Request::Switch { disk, notify, complete, moderate } => {
            send(stream, switch(parts, &disk, notify.as_deref(), complete.as_deref(), moderate.as_deref()))
        }
        Request::TraceStart { capacity } => {
            let started = tracer.start(capacity).map(|new| *tracing = Some(new));
            send(stream, started.map(|()| true).map_err(|error| Refusal::new("busy", error.to_string())))
        }
        Request::TraceStop => {
            let recording = tracing.take().map(Tracing::stop);
            send(
                stream,
                recording.ok_or_else(|| Refusal::new("usage", "no trace was started on this connection")),
            )
        }
    }
}

fn send<T: Serialize>(mut stream: &UnixStream, result: Result<T, Refusal>) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Answer::from(result))?;
    line.push(b'\n');
    stream.write_all(&line)
}
