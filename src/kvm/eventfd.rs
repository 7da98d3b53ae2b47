//! What [`super::Vector`] needs of an eventfd. A file of its own, so that tests/loom.rs can put a model in its place.

use std::os::fd::AsRawFd;

pub use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Whether the counter is not zero. Does not consume it.
pub fn readable(event: &EventFd) -> bool {
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, no waiting.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}
