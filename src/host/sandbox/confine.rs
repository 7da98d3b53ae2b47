//! Makes every thread enter its profile, whatever it is waiting for.
//!
//! A filter, a Landlock domain and capabilities belong to a thread, and only the thread itself can change them. So a signal
//! makes each one do it, as the C library does for setuid(2): no thread needs a message for it, none can be forgotten, and
//! those that are started later inherit.

use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

use super::profile::{Profile, Step, errno};
use super::violation;
use crate::host::Locked;
use crate::host::thread;

/// How long a thread may take. All threads wait then, because the guest has not started.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a thread is not confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel refused.
    #[error("{what} of thread {thread}: {source}")]
    Refused {
        /// Its name.
        thread: String,
        /// What was refused.
        what: &'static str,
        /// errno.
        source: std::io::Error,
    },
    /// It did not react in time.
    #[error("thread {0} does not react to the signal")]
    Silent(String),
    /// No signal handler or no eventfd.
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
}

/// What the handler looks up.
struct Orders {
    threads: Vec<Order>,
    done: EventFd,
}

struct Order {
    tid: i32,
    name: String,
    profile: Arc<Profile>,
    result: AtomicI32,
}

/// [`Order::result`] until its thread has answered.
const WAITING: i32 = -1;
/// [`Order::result`]: `step << SHIFT | errno`.
const SHIFT: u32 = 16;

static ORDERS: AtomicPtr<Orders> = AtomicPtr::new(std::ptr::null_mut());

/// Confines all threads of the calling thread's group (see [`thread::group`]), the calling thread last. `profile_of` finds a
/// thread's profile by its name. Threads that were confined before are left as they are.
///
/// # Errors
/// See [`ConfineError`]; the others are confined then.
pub fn confine(profile_of: &dyn Fn(&str) -> Arc<Profile>) -> Result<(), ConfineError> {
    /// One at a time: there is one table.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.locked();
    violation::watch().map_err(ConfineError::Signals)?;
    let others = order_others(profile_of);
    let name = thread::with_name(|name| String::from_utf8_lossy(name).into_owned());
    let own = if thread::is_confined() { Ok(()) } else { enter(&profile_of(&name)) };
    own.map_err(|(step, errno)| refused(&name, step, errno)).and(others)
}

fn order_others(profile_of: &dyn Fn(&str) -> Arc<Profile>) -> Result<(), ConfineError> {
    let signal = libc::SIGRTMIN() + 1;
    register_signal_handler(signal, enter_ordered).map_err(|e| ConfineError::Signals(e.into()))?;
    // While the list is held none of them can end.
    let members = thread::members();
    let own = thread::id();
    let group = thread::group();
    let threads: Vec<_> = members
        .iter()
        .filter(|member| member.group == group && member.id != own)
        .map(|member| Order {
            tid: member.id,
            name: member.name.clone(),
            profile: profile_of(&member.name),
            result: AtomicI32::new(WAITING),
        })
        .collect();
    let done = EventFd::new(EFD_NONBLOCK).map_err(ConfineError::Signals)?;
    // Never freed: a late thread may still read it. It takes about a page for each VM of the process.
    let orders: &'static Orders = Box::leak(Box::new(Orders { threads, done }));
    ORDERS.store(std::ptr::from_ref(orders).cast_mut(), Ordering::Release);
    for order in &orders.threads {
        // SAFETY: no pointers; the thread is in the list, so it exists.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), order.tid, signal) };
    }
    let deadline = Instant::now() + TIMEOUT;
    while orders.threads.iter().any(Order::waits) && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&orders.done);
        let mut answer = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut answer, 1, left) };
        let _ = orders.done.read();
    }
    ORDERS.store(std::ptr::null_mut(), Ordering::Release);
    drop(members);
    orders.threads.iter().try_for_each(Order::outcome)
}

impl Order {
    fn waits(&self) -> bool {
        self.result.load(Ordering::Acquire) == WAITING
    }

    fn outcome(&self) -> Result<(), ConfineError> {
        match self.result.load(Ordering::Acquire) {
            0 => Ok(()),
            WAITING => Err(ConfineError::Silent(self.name.clone())),
            code => Err(refused(&self.name, STEPS[(code >> SHIFT) as usize & 3], code & 0xffff)),
        }
    }
}

const STEPS: [Step; 4] = [Step::NoNewPrivileges, Step::Landlock, Step::Capabilities, Step::Seccomp];

fn refused(thread: &str, step: Step, errno: i32) -> ConfineError {
    let what = match step {
        Step::NoNewPrivileges => "no_new_privs",
        Step::Landlock => "the Landlock domain",
        Step::Capabilities => "giving up the capabilities",
        Step::Seccomp => "the seccomp filter",
    };
    ConfineError::Refused { thread: thread.into(), what, source: std::io::Error::from_raw_os_error(errno) }
}

fn enter(profile: &Profile) -> Result<(), (Step, i32)> {
    profile.enter()?;
    thread::set_confined();
    Ok(())
}

/// Makes the thread that it runs on enter its profile. Only async-signal-safe calls.
extern "C" fn enter_ordered(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let before = errno();
    // SAFETY: null or a table that is never freed.
    let orders = unsafe { ORDERS.load(Ordering::Acquire).as_ref() };
    // SAFETY: no pointers.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    if let Some(orders) = orders
        && let Some(order) = orders.threads.iter().find(|order| order.tid == tid)
        && order.waits()
    {
        let entered = if thread::is_confined() { Ok(()) } else { enter(&order.profile) };
        let code = entered.map_or_else(|(step, errno)| (step as i32) << SHIFT | errno, |()| 0);
        order.result.store(code, Ordering::Release);
        // One write(2).
        let _ = orders.done.write(1);
    }
    // SAFETY: the calling thread's own variable, as the interrupted code expects it.
    unsafe { *libc::__errno_location() = before };
}
