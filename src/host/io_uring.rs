use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Checks that this process may use io_uring with every operation that the backend needs.
///
/// # Errors
/// The reason why not, and what would change it, as part of a sentence.
pub fn io_uring_available() -> Result<(), String> {
    let mut ring = IoUring::new(2).map_err(|e| {
        let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        reason(&e, switch.unwrap_or_default().trim())
    })?;
    enter(&mut ring).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "a seccomp filter forbids io_uring_enter: containers need a profile that allows it".into()
        }
        _ => format!("io_uring_enter failed: {e}"),
    })?;
    let mut probe = Probe::new();
    // Kicks need polls that stay armed (Linux 5.13). The probe does not report those, so a feature bit that came
    // with the same version stands for them.
    let polls = ring.params().is_feature_resource_tagging();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
    ];
    new_enough(polls, probed && needed.iter().all(|&code| probe.is_supported(code)))
}

fn new_enough(polls: bool, operations: bool) -> Result<(), String> {
    match polls && operations {
        true => Ok(()),
        false => Err("its io_uring is too old (Linux 5.13 is needed)".into()),
    }
}

/// Submits a request that does nothing and waits for it. A seccomp filter can allow io_uring_setup and refuse this.
fn enter(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: the entry points to nothing.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
    loop {
        match ring.submit_and_wait(1) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// `switch` is the value of kernel.io_uring_disabled (Linux 6.6), or empty on a kernel without it.
fn reason(error: &io::Error, switch: &str) -> String {
    match (error.raw_os_error(), switch) {
        (Some(libc::ENOSYS), _) => {
            "its kernel has no io_uring (Linux 5.13 is needed), or a filter hides it".into()
        }
        (Some(libc::EPERM), value @ ("1" | "2")) => format!(
            "io_uring is switched off (kernel.io_uring_disabled={value}): `sysctl kernel.io_uring_disabled=0` allows it"
        ),
        (Some(libc::EPERM), _) => {
            "a seccomp filter forbids io_uring: containers need a profile that allows it".into()
        }
        (Some(libc::ENOMEM), _) => "io_uring got no locked memory: raise `ulimit -l`".into(),
        _ => format!("io_uring_setup failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_switched_it_off() {
        let reason = |code, switch| reason(&io::Error::from_raw_os_error(code), switch);
        assert!(reason(libc::EPERM, "2").contains("`sysctl kernel.io_uring_disabled=0`"));
        assert!(reason(libc::EPERM, "0").contains("seccomp"));
        assert!(reason(libc::EPERM, "").contains("seccomp"));
        assert!(reason(libc::ENOSYS, "").contains("Linux 5.13"));
        assert!(reason(libc::ENOMEM, "0").contains("ulimit -l"));
    }

    #[test]
    fn a_kernel_whose_polls_do_not_stay_armed_is_too_old() {
        // Linux 5.6 to 5.12 has every operation.
        assert!(new_enough(false, true).is_err_and(|why| why.contains("Linux 5.13")));
        assert!(new_enough(true, false).is_err());
        assert_eq!(new_enough(true, true), Ok(()));
    }
}
