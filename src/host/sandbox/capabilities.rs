//! Capabilities of the calling thread; capget(2), capset(2), version 3: two words of 32 bits each.

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Effective, permitted and inheritable.
#[repr(C)]
#[derive(Clone, Copy)]
struct Word([u32; 3]);

/// Gives all of them up. Async-signal-safe; returns 0 or an errno.
pub(super) fn drop_all() -> i32 {
    let header = Header { version: VERSION, pid: 0 };
    let none = [Word([0; 3]); 2];
    // SAFETY: a header and the two words of version 3, both valid for the call.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) } {
        0 => 0,
        _ => super::profile::errno(),
    }
}
