use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::resize::resize;
use super::socket::{ServeError, identity, listen};
use super::switch::switch;
use super::{Answer, Call, MAX_REQUEST, PROTOCOL, Refusal, Request};
use crate::host::cleanup::Leftover;
use crate::host::thread::{self, OnDeath};
use crate::observe::trace::{Tracer, Tracing};
use crate::observe::{VmParts, inspect};

/// Clients at a time.
const MAX_CLIENTS: usize = 8;
/// A request must be whole within this, from its first byte on. Between two requests a client may be silent for as long
/// as it likes: a trace has no other limit.
const REQUEST_TIME: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
/// A client must take some of its answer within this.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The VM behind the socket. A request holds it for reading while its answer is made, not while it is sent.
struct Behind {
    parts: VmParts,
    tracer: Arc<Tracer>,
}

/// The control socket of a VM, served on threads of its own; dropping it ends them and takes the socket away.
///
/// A client can hold up nobody but itself: it has a thread, a bounded line, and a time for both directions.
pub struct ControlServer {
    path: PathBuf,
    /// Device and inode: another VM may have put a socket of its own there since.
    identity: (u64, u64),
    listener: UnixListener,
    clients: Arc<Clients>,
    behind: Arc<RwLock<Behind>>,
    thread: Option<JoinHandle<()>>,
    /// Also when a signal ends the process at once.
    _name: Leftover,
}

/// The connections that are open, so that they can be ended.
struct Clients {
    open: Mutex<BTreeMap<u64, Client>>,
    on_death: OnDeath,
    /// The server is being dropped: the listener fails because it is shut down.
    ending: AtomicBool,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Serves `parts` at `path`; a socket that a dead VM left there is replaced.
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

    /// Puts another VM behind the socket: the one that `make` returns, with its parts. The parts of the former one are let
    /// go before. Clients stay connected, and their requests wait meanwhile.
    ///
    /// # Errors
    /// Those of `make`; no VM is behind the socket then.
    pub fn replace<T, E>(&self, make: impl FnOnce() -> Result<(T, VmParts, Arc<Tracer>), E>) -> Result<T, E> {
        let mut behind = self.behind.write().unwrap_or_else(PoisonError::into_inner);
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

    /// Where it is.
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
            // No descriptors just now: the client waits with us.
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
            // Not there any more if the server is ending: it joins this thread.
            all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            Ok(())
        };
        // The lock is held: the thread cannot leave before it has been entered.
        if let Ok(thread) = thread::spawn("control-client", self.on_death.clone(), serve) {
            open.insert(number, Client { stream: kept, thread: Some(thread) });
        }
    }
}

/// Answers one client's requests until it leaves, breaks a limit, or the VM ends.
fn serve(stream: &UnixStream, behind: &RwLock<Behind>) {
    // Ended with the connection, whatever the reason.
    let mut tracing = None;
    while let Some(asked) = read_line(stream) {
        let answer = match understand(&asked) {
            Ok(request) => {
                answer(request, &behind.read().unwrap_or_else(PoisonError::into_inner), &mut tracing)
            }
            Err(refusal) => line::<()>(Err(refusal)),
        };
        if send(stream, &answer).is_err() {
            return;
        }
    }
}

/// One line, `None` at the end of the connection or after the timeout.
fn read_line(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut deadline = Instant::now();
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = (!line.is_empty()).then(|| left.max(Duration::from_millis(1)));
        stream.set_read_timeout(limit).ok()?;
        // Byte by byte: requests are short and rare, and nothing of the next one is taken.
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
                let long = Refusal::new("usage", format!("a request has at most {MAX_REQUEST} bytes"));
                let _ = send(stream, &self::line::<()>(Err(long)));
                return None;
            }
            _ => return None,
        }
    }
}

fn understand(line: &[u8]) -> Result<Request, Refusal> {
    let usage = |message: String| Refusal::new("usage", message);
    let value: serde_json::Value = serde_json::from_slice(line)
        .map_err(|error| usage(format!("a request is one line of JSON: {error}")))?;
    match value.get("doorbell").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(PROTOCOL) => {}
        Some(version) => {
            return Err(usage(format!(
                "this VM speaks version {PROTOCOL} of the control protocol, not {version}; use its doorbell"
            )));
        }
        None => return Err(usage(format!("a request begins with {{\"doorbell\":{PROTOCOL},\"verb\":...}}"))),
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
            Refusal::new("usage", format!("there is no {section:?} to look at: {sections}, all"))
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
            line(recording.ok_or_else(|| Refusal::new("usage", "this connection traces nothing")))
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
