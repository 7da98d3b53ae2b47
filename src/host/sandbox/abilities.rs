//! What this host's kernel can enforce.

use std::fs;

/// What this host's kernel can enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Seccomp filters that end the process with a signal.
    pub seccomp: bool,
    /// Version of Landlock's interface; 0: there is none, or it is off.
    pub landlock: u32,
}

impl Abilities {
    /// Asks the kernel; changes nothing.
    pub fn of_this_host() -> Abilities {
        let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        let seccomp = if actions.is_empty() { has_filters() } else { actions.contains("trap") };
        /// LANDLOCK_CREATE_RULESET_VERSION.
        const VERSION: libc::c_ulong = 1;
        // SAFETY: no ruleset is passed: the call returns the version.
        let landlock = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION)
        };
        Abilities { seccomp, landlock: u32::try_from(landlock).unwrap_or(0) }
    }
}

/// A filter at address 0 is EFAULT where there are filters, and EINVAL where there are none.
fn has_filters() -> bool {
    // SAFETY: the kernel reads nothing at address 0.
    let refused =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::null::<u8>(), 0, 0) };
    refused < 0 && super::profile::errno() == libc::EFAULT
}
