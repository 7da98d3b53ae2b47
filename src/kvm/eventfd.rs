//! The eventfd of [`super::Vector`]. It is a separate file so that tests/loom.rs can replace it with a model.

use std::os::fd::AsRawFd;

pub use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Returns whether the counter is above 0. Uses poll(2), so the counter keeps its value.
pub fn readable(event: &EventFd) -> bool {
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, no waiting.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}
