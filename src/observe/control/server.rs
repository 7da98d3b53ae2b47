use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::resize::resize;
use super::socket::{ServeError, identity, listen};
use super::switch::switch;
use super::{Answer, Call, MAX_REQUEST, PROTOCOL, Refusal, Request};
use crate::host::cleanup::Leftover;
use crate::host::thread::{self, OnDeath};
use crate::host::{Locked, LockedRw};
use crate::observe::trace::{Tracer, Tracing};
use crate::observe::{VmParts, inspect};

/// Most clients at a time.
const MAX_CLIENTS: usize = 8;
/// A request must be complete within this time from its first byte on. Between two requests a client may be silent
/// without limit, because a trace may last.
const REQUEST_TIME: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// A client must read some of its answer within this time.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The VM behind the socket. A request holds it for reading while its answer is made, not while it is sent.
struct Behind {
    parts: VmParts,
    tracer: Arc<Tracer>,
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
    behind: Arc<RwLock<Behind>>,
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
        parts: VmParts,
        tracer: Arc<Tracer>,
        on_death: OnDeath,
    ) -> Result<ControlServer, ServeError> {
        let fail = |source| ServeError::Io { path: path.into(), source };
        let (listener, identity) = listen(path)?;
        let clients = Arc::new(Clients {
            on_death: on_death.clone(),
            open: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        let behind = Arc::new(RwLock::new(Behind { parts, tracer }));
        let (accepting, all, vm) = (listener.try_clone().map_err(fail)?, clients.clone(), behind.clone());
        let serve = move || accept(&accepting, &all, &vm);
        let thread = thread::spawn("control", on_death, serve).map_err(fail)?;
        Ok(ControlServer {
            path: path.into(),
            identity,
            listener,
            clients,
            behind,
            thread: Some(thread),
            _name: Leftover::new(path),
        })
    }

    /// Puts another VM behind the socket: the one that `make` returns, with its parts. The parts of the former one are
    /// dropped first. Clients stay connected, and their requests wait meanwhile.
    ///
    /// # Errors
    /// Those of `make`; no VM is behind the socket then.
    pub fn replace<T, E>(&self, make: impl FnOnce() -> Result<(T, VmParts, Arc<Tracer>), E>) -> Result<T, E> {
        let mut behind = self.behind.writing();
        behind.parts = VmParts::default();
        let (made, parts, tracer) = make()?;
        *behind = Behind { parts, tracer };
        Ok(made)
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
        let clients = std::mem::take(&mut *self.clients.open.locked());
        for (_, client) in clients {
            let _ = client.stream.shutdown(Shutdown::Both);
            client.thread.map(JoinHandle::join);
        }
    }
}

fn accept(
    listener: &UnixListener,
    clients: &Arc<Clients>,
    behind: &Arc<RwLock<Behind>>,
) -> Result<(), String> {
    let mut number = 0;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                number += 1;
                clients.admit(number, stream, behind);
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
    fn admit(self: &Arc<Self>, number: u64, stream: UnixStream, behind: &Arc<RwLock<Behind>>) {
        let times = stream.set_write_timeout(Some(ANSWER_TIME));
        let mut open = self.open.locked();
        let Ok(kept) = times.and_then(|()| stream.try_clone()) else { return };
        if open.len() >= MAX_CLIENTS {
            let full =
                Refusal::new("busy", format!("the VM has {MAX_CLIENTS} clients already; try again later"));
            let _ = send(&stream, &line::<()>(Err(full)));
            return;
        }
        let (all, behind) = (self.clone(), behind.clone());
        let serve = move || {
            serve(&stream, &behind);
            let _ = stream.shutdown(Shutdown::Both);
            // No entry any more if the server is being dropped; then drop joins this thread.
            all.open.locked().remove(&number);
            Ok(())
        };
        // The lock is held, so the thread cannot remove its entry before it is inserted.
        if let Ok(thread) = thread::spawn("control-client", self.on_death.clone(), serve) {
            open.insert(number, Client { stream: kept, thread: Some(thread) });
        }
    }
}

/// Serves one client until it leaves, exceeds a limit, or the VM ends.
fn serve(stream: &UnixStream, behind: &RwLock<Behind>) {
    // Dropped with the connection, which ends the recording.
    let mut tracing = None;
    while let Some(asked) = read_line(stream) {
        let answer = match understand(&asked) {
            Ok(request) => answer(request, &behind.reading(), &mut tracing),
            Err(refusal) => line::<()>(Err(refusal)),
        };
        if send(stream, &answer).is_err() {
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
                let long = Refusal::new("usage", format!("a request may have at most {MAX_REQUEST} bytes"));
                let _ = send(stream, &self::line::<()>(Err(long)));
                return None;
            }
            _ => return None,
        }
    }
}

pub(super) fn understand(line: &[u8]) -> Result<Request, Refusal> {
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

/// The line that answers `request`.
fn answer(request: Request, vm: &Behind, tracing: &mut Option<Tracing>) -> io::Result<Vec<u8>> {
    let Behind { parts, tracer } = vm;
    match request {
        Request::Inspect { section } => line(parts.look(&section).ok_or_else(|| {
            let sections = inspect::SECTIONS.join(", ");
            Refusal::new("usage", format!("there is no section {section:?}; use one of {sections}, all"))
        })),
        Request::Switch { disk, notify, complete, moderate } => {
            line(switch(parts, &disk, notify.as_deref(), complete.as_deref(), moderate.as_deref()))
        }
        Request::Resize { disk, size } => line(resize(parts, &disk, size)),
        Request::TraceStart { capacity } => {
            let started = tracer.start(capacity).map(|new| *tracing = Some(new));
            line(started.map(|()| true).map_err(|error| Refusal::new("busy", error.to_string())))
        }
        Request::TraceStop => {
            let recording = tracing.take().map(Tracing::stop);
            line(recording.ok_or_else(|| Refusal::new("usage", "no trace was started on this connection")))
        }
    }
}

fn line<T: Serialize>(result: Result<T, Refusal>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Answer::from(result))?;
    line.push(b'\n');
    Ok(line)
}

fn send(mut stream: &UnixStream, line: &io::Result<Vec<u8>>) -> io::Result<()> {
    match line {
        Ok(line) => stream.write_all(line),
        Err(error) => Err(error.kind().into()),
    }
}
