use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Whether this process may use io_uring with every operation that the backend needs.
///
/// # Errors
/// The reason, and what would change it, as a part of a sentence.
pub fn io_uring_available() -> Result<(), String> {
    let ring = IoUring::new(2).map_err(|e| reason(&e))?;
    let mut probe = Probe::new();
    // The probe came with Linux 5.6, as did the youngest operations asked for.
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
    ];
    match probed && needed.iter().all(|&code| probe.is_supported(code)) {
        true => Ok(()),
        false => Err("its io_uring is too old (Linux 5.6 is needed)".into()),
    }
}

fn reason(error: &io::Error) -> String {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match (error.raw_os_error(), switch.trim()) {
        (Some(libc::ENOSYS), _) => {
            "its kernel has no io_uring (Linux 5.6 is needed), or a filter hides it".into()
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
