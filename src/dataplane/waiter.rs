//! The sleep of a loop: on an epoll, or on the io_uring that its backends use.
//!
//! Kick eventfds are watched edge triggered and never read. So a thread makes one system call for its sleep and one for
//! its interrupt. Nothing resets the eventfd's counter, so it is the kernel's count of the kicks.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};

/// An event that a wait reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The watched file descriptor with this tag is ready.
    Ready(u32),
    /// The kernel has stopped watching the descriptor with this tag.
    Failed { tag: u32, errno: i32 },
    /// A completion for a backend.
    Completion { worker: u32, token: u64, result: i32 },
}

/// Whether a wait may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitMode {
    /// Sleep until there is an event.
    Sleep,
    /// Collect what is there, without sleeping.
    Look,
}

pub(super) enum Waiter {
    Epoll { epoll: OwnedFd, buffer: Vec<libc::epoll_event> },
    Uring(Box<Uring>),
}

pub(super) struct Uring {
    ring: IoUring,
    watches: Vec<Watch>,
    /// Tags whose poll has ended: a one-shot (level) poll with its report, a multishot poll when the kernel ends it.
    rearm: Vec<u32>,
    /// The number of backend requests among the entries that are not submitted.
    queued_requests: usize,
}

struct Watch {
    tag: u32,
    fd: RawFd,
    edge: bool,
}

// user_data of an entry: the top bit marks a watch. Without it, the entry is a backend's request, with the worker in
// bits 32-62 and the token, a slot of the queue, in bits 0-31.
const WATCH: u64 = 1 << 63;
/// Marks entries whose completions need no action.
const IGNORE: u64 = WATCH | (1 << 62);

const ENTRIES: u32 = 1024;
/// IORING_ENTER_GETEVENTS: run deferred completions even if the call waits for none.
const GETEVENTS: u32 = 1;

impl Waiter {
    pub fn epoll() -> io::Result<Waiter> {
        // SAFETY: no pointers; the result is checked and owned.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Waiter::Epoll { epoll, buffer: vec![libc::epoll_event { events: 0, u64: 0 }; 64] })
    }

    pub fn uring() -> io::Result<Waiter> {
        // With these flags (Linux 6.1) the kernel runs completions only when this thread waits, so they never interrupt
        // it. Older kernels get a plain ring.
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_cqsize(8 * ENTRIES)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)
            .or_else(|_| IoUring::builder().setup_r_disabled().setup_cqsize(8 * ENTRIES).build(ENTRIES))?;
        restrict(&ring)?;
        Ok(Waiter::Uring(Box::new(Uring {
            ring,
            watches: Vec::new(),
            rearm: Vec::new(),
            queued_requests: 0,
        })))
    }

    /// Watches `fd` for input and reports it with `tag`: once per signal with `edge`, otherwise as long as there is
    /// input.
    pub fn add(&mut self, tag: u32, fd: RawFd, edge: bool) -> io::Result<()> {
        match self {
            Waiter::Epoll { epoll, .. } => {
                let events = (libc::EPOLLIN | if edge { libc::EPOLLET } else { 0 }) as u32;
                let mut event = libc::epoll_event { events, u64: u64::from(tag) };
                // SAFETY: a valid event; the call copies it.
                cvt(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })
            }
            Waiter::Uring(uring) => {
                uring.watches.push(Watch { tag, fd, edge });
                uring.rearm.push(tag);
                Ok(())
            }
        }
    }

    /// Stops watching `fd`. One more report may still arrive.
    pub fn remove(&mut self, tag: u32, fd: RawFd) -> io::Result<()> {
        match self {
            Waiter::Epoll { epoll, .. } => {
                // SAFETY: a null event is allowed for DEL since Linux 2.6.9.
                cvt(unsafe {
                    libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut())
                })
            }
            Waiter::Uring(uring) => {
                uring.watches.retain(|watch| watch.tag != tag);
                let entry = opcode::PollRemove::new(WATCH | u64::from(tag)).build().user_data(IGNORE);
                // SAFETY: the entry points to nothing.
                unsafe { uring.push(entry) }
            }
        }
    }

    /// Submits what backends queued and collects what happened, with one system call.
    pub fn wait(&mut self, mode: WaitMode, events: &mut Vec<Event>) -> io::Result<()> {
        match self {
            Waiter::Epoll { epoll, buffer } => {
                let timeout = if mode == WaitMode::Sleep { -1 } else { 0 };
                // SAFETY: the buffer has room for the number of events that is passed.
                let n = unsafe {
                    libc::epoll_wait(epoll.as_raw_fd(), buffer.as_mut_ptr(), buffer.len() as i32, timeout)
                };
                if n < 0 {
                    return ignore_eintr(Err(io::Error::last_os_error()));
                }
                events.extend(buffer[..n as usize].iter().map(|e| Event::Ready(e.u64 as u32)));
                Ok(())
            }
            Waiter::Uring(uring) => uring.wait(mode, events),
        }
    }

    /// Queues a write of 1 to the eventfd `event`. The next wait submits it with its one system call, so the interrupt
    /// costs no separate one. Returns `false` if the caller must write. It queues nothing behind other entries, because
    /// the interrupt would wait for their submission.
    pub fn queue_signal(&mut self, event: RawFd) -> bool {
        match self {
            Waiter::Epoll { .. } => false,
            Waiter::Uring(uring) => uring.queue_signal(event),
        }
    }

    /// Returns whether completions are ready. Makes no system call.
    pub fn has_completions(&mut self) -> bool {
        match self {
            Waiter::Epoll { .. } => false,
            Waiter::Uring(uring) => !uring.ring.completion().is_empty() || uring.ring.submission().taskrun(),
        }
    }

    /// Returns the number of backend requests that are queued and not submitted.
    pub fn queued_requests(&self) -> usize {
        match self {
            Waiter::Epoll { .. } => 0,
            Waiter::Uring(uring) => uring.queued_requests,
        }
    }

    /// Returns whether anything is queued and not submitted: requests, interrupts, watches.
    pub fn has_unsubmitted(&mut self) -> bool {
        match self {
            Waiter::Epoll { .. } => false,
            Waiter::Uring(uring) => !uring.ring.submission().is_empty(),
        }
    }
}

/// Lets the io_uring do what the loop and its backends need, for good, and starts it. An io_uring goes round seccomp: whoever
/// controls its memory could else open files and sockets with it.
fn restrict(ring: &IoUring) -> io::Result<()> {
    const OPERATIONS: [u8; 10] = [
        opcode::Nop::CODE,
        opcode::Timeout::CODE,
        opcode::PollAdd::CODE,
        opcode::PollRemove::CODE,
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
    ];
    let flags = io_uring::squeue::Flags::SKIP_SUCCESS.bits();
    let mut allowed: Vec<_> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    allowed.push(Restriction::sqe_flags_allowed(flags));
    ring.submitter().register_restrictions(&mut allowed)?;
    ring.submitter().register_enable_rings()
}

impl Uring {
    /// # Safety
    /// What `entry` points to stays valid and in place until its completion.
    unsafe fn push(&mut self, entry: io_uring::squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promises.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return Ok(());
        }
        // The submission queue is full: a batch larger than it costs one more system call.
        self.ring.submit()?;
        // SAFETY: as above.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    fn queue_signal(&mut self, event: RawFd) -> bool {
        /// Static, because queued entries point to it.
        static ONE: u64 = 1;
        // Without this feature (Linux 5.17) the write would post a completion, and end the sleep that submits it.
        if !self.ring.params().is_feature_skip_cqe_on_success() || !self.ring.submission().is_empty() {
            return false;
        }
        let entry =
            opcode::Write::new(types::Fd(event), (&raw const ONE).cast(), size_of::<u64>() as u32).build();
        let entry = entry.flags(io_uring::squeue::Flags::SKIP_SUCCESS).user_data(IGNORE);
        // SAFETY: the entry points to a static. The vector owns the eventfd and outlives the queue's attachment, and
        // the loop submits its entries before it detaches a queue or ends.
        unsafe { self.push(entry) }.is_ok()
    }

    fn wait(&mut self, mode: WaitMode, events: &mut Vec<Event>) -> io::Result<()> {
        // Arming costs an entry and no system call: the wait below submits it together with the backends' requests.
        while let Some(tag) = self.rearm.pop() {
            if let Some(watch) = self.watches.iter().find(|watch| watch.tag == tag) {
                let poll = opcode::PollAdd::new(types::Fd(watch.fd), libc::POLLIN as u32).multi(watch.edge);
                // SAFETY: the entry points to nothing. A closed descriptor gives an error in the completion.
                let pushed = unsafe { self.push(poll.build().user_data(WATCH | u64::from(tag))) };
                if pushed.is_err() {
                    // There is no room: completions must be reaped first. The next wait arms this one.
                    self.rearm.push(tag);
                    ignore_eintr(pushed)?;
                    break;
                }
            }
        }
        self.queued_requests = 0;
        // A watch that is not armed cannot end a sleep, so do not sleep before all are armed.
        let mode = if self.rearm.is_empty() { mode } else { WaitMode::Look };
        let waited = match mode {
            // One system call submits the batch, sends a queued interrupt, and sleeps until the first completion.
            WaitMode::Sleep => self.ring.submit_and_wait(1),
            WaitMode::Look => {
                let queued = self.ring.submission().len() as u32;
                // SAFETY: no argument is passed.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) }
            }
        };
        ignore_eintr(waited.map(drop))?;
        // No more than there is room for: the rest is there for the next wait, and the list never grows.
        let room = events.capacity() - events.len();
        for entry in self.ring.completion().take(room.max(1)) {
            let (data, result) = (entry.user_data(), entry.result());
            if data & WATCH == 0 {
                let (worker, token) = ((data >> 32) as u32, data & u64::from(u32::MAX));
                events.push(Event::Completion { worker, token, result });
                continue;
            }
            let tag = data as u32;
            if data == IGNORE || !self.watches.iter().any(|watch| watch.tag == tag) {
                continue;
            }
            if result < 0 {
                // Do not arm it again: it would fail again, in an endless loop.
                events.push(Event::Failed { tag, errno: result.saturating_neg() });
                continue;
            }
            if !io_uring::cqueue::more(entry.flags()) {
                self.rearm.push(tag);
            }
            events.push(Event::Ready(tag));
        }
        Ok(())
    }
}

/// The access of one backend to the io_uring of its thread.
pub(super) struct Tagged<'a> {
    pub waiter: &'a mut Waiter,
    pub worker: u32,
}

impl crate::backend::Submitter for Tagged<'_> {
    unsafe fn push(&mut self, token: u64, entry: io_uring::squeue::Entry) -> io::Result<()> {
        let Waiter::Uring(uring) = &mut *self.waiter else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let data = u64::from(self.worker) << 32 | (token & u64::from(u32::MAX));
        // SAFETY: as the caller promises.
        unsafe { uring.push(entry.user_data(data)) }?;
        uring.queued_requests += 1;
        Ok(())
    }
}

fn cvt(ret: i32) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ignore_eintr(result: io::Result<()>) -> io::Result<()> {
    match result {
        // EBUSY and EAGAIN: the completion queue must be emptied first. The caller does that next.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
        other => other,
    }
}
