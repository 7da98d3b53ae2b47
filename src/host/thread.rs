//! Threads whose failure is reported and ends the VM.

use crate::host::Locked;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};

/// Called with one sentence when a thread fails. It ends the VM that the thread works for.
pub type OnDeath = Arc<dyn Fn(String) + Send + Sync>;

/// A thread that lives.
#[derive(Debug)]
pub(super) struct Member {
    pub group: u64,
    /// As the kernel numbers it.
    pub id: i32,
    pub name: String,
}

/// The threads that [`start`] started.
static MEMBERS: Mutex<Vec<Member>> = Mutex::new(Vec::new());

/// Bytes of a name that are kept: as many as the kernel keeps.
const NAME: usize = 15;

thread_local! {
    // They have `const` initializers and no destructor: a signal handler may use them.
    static GROUP: Cell<u64> = const { Cell::new(0) };
    static CONFINED: Cell<bool> = const { Cell::new(false) };
    static OWN_NAME: Cell<([u8; NAME], u8)> = const { Cell::new(([0; NAME], 0)) };
}

/// The calling thread's group. A thread is in the group of the one that started it, and the first one is in group 0: the
/// threads of a VM are a group, where a process has several VMs.
pub fn group() -> u64 {
    GROUP.get()
}

/// Puts the calling thread into a group of its own.
pub fn leave_group() {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    GROUP.set(NEXT.fetch_add(1, Ordering::Relaxed));
}

/// Whether the calling thread has entered a sandbox, or was started by one that had.
pub fn is_confined() -> bool {
    CONFINED.get()
}

/// The calling thread has entered a sandbox.
pub(super) fn set_confined() {
    CONFINED.set(true);
}

/// The threads that live; none of them can end while this is held.
pub(super) fn members() -> MutexGuard<'static, Vec<Member>> {
    MEMBERS.locked()
}

/// The calling thread, as the kernel numbers it.
pub(super) fn id() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Calls `read` with the calling thread's name. Async-signal-safe.
pub(super) fn with_name<T>(read: impl FnOnce(&[u8]) -> T) -> T {
    let (bytes, len) = OWN_NAME.get();
    read(bytes.get(..usize::from(len)).filter(|name| !name.is_empty()).unwrap_or(b"?"))
}

/// Starts a thread. When this returns it is among `members`, under `name`.
///
/// # Errors
/// The kernel refuses another thread.
pub fn start<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let (thread, group, confined) = (name.to_string(), group(), is_confined());
    let (listed, entered) = crossbeam_channel::bounded(1);
    let thread = Builder::new().name(name.into()).spawn(move || {
        GROUP.set(group);
        CONFINED.set(confined);
        let _entry = Entry::new(&thread);
        let _ = listed.send(());
        body()
    })?;
    // Fails only if the thread is dead already.
    let _ = entered.recv();
    Ok(thread)
}

/// Starts a thread that runs `body`. If `body` returns `Err` or panics, the thread calls `on_death`.
///
/// # Errors
/// The host cannot start a thread (EAGAIN: a limit on threads or memory).
pub fn spawn(
    name: &str,
    on_death: OnDeath,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = name.to_string();
    start(name, move || watched(&thread, &*on_death, body))
}

/// Runs `body` on the calling thread, which the messages call `name`. An `Err` or a panic calls `on_death`.
pub fn watched(name: &str, on_death: &dyn Fn(String), body: impl FnOnce() -> Result<(), String>) {
    set_name(name);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => on_death(format!("thread {name} died: {why}")),
        // The panic hook has already printed where.
        Err(_) => on_death(format!("thread {name} died: a bug in doorbell (see above)")),
    }
}

fn set_name(name: &str) {
    let mut bytes = [0; NAME];
    let len = name.len().min(NAME);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    OWN_NAME.set((bytes, len as u8));
}

/// The calling thread's place in the list.
struct Entry(i32);

impl Entry {
    fn new(name: &str) -> Entry {
        set_name(name);
        let id = id();
        members().push(Member { group: group(), id, name: name.into() });
        Entry(id)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        members().retain(|member| member.id != self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_an_error_are_deaths_and_an_end_is_not() {
        let (sender, deaths) = crossbeam_channel::unbounded();
        let on_death: OnDeath = Arc::new(move |why| sender.send(why).unwrap());
        let bodies: [fn() -> Result<(), String>; 3] =
            [|| Ok(()), || Err("no epoll".into()), || panic!("this panic belongs to a test")];
        for (n, body) in bodies.into_iter().enumerate() {
            spawn(&format!("t{n}"), on_death.clone(), body).unwrap().join().unwrap();
        }
        drop(on_death);
        let deaths: Vec<_> = deaths.iter().collect();
        assert_eq!(deaths[0], "thread t1 died: no epoll");
        assert!(deaths.len() == 2 && deaths[1].starts_with("thread t2 died: a bug"), "{deaths:?}");
    }
}
