use std::sync::OnceLock;

use super::log;

/// Pins the calling thread to `cpu`. If that CPU does not exist or is not allowed, prints a message and does no more.
pub fn pin_to_cpu(cpu: usize) {
    // SAFETY: a zeroed cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return log::warn("pinning", format_args!("there is no CPU {cpu}"));
    }
    // SAFETY: in range, by the check above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid and as long as the size that is passed.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0 {
        let error = std::io::Error::last_os_error();
        log::warn("pinning", format_args!("cannot stay on CPU {cpu}: {error}"));
    }
}

/// The CPUs that this process may run on (sched_getaffinity(2)), in order.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a zeroed cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size are those of a valid set; on failure it stays empty.
    unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    // SAFETY: every index is below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Returns CLOCK_MONOTONIC in nanoseconds. It is read through the vDSO, without a system call.
pub fn monotonic_ns() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is valid for the result; every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// Whether this process may use more than one CPU. Asked once: the answer is in files of /proc and of cgroups.
pub fn has_spare_cpu() -> bool {
    static SPARE: OnceLock<bool> = OnceLock::new();
    *SPARE.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()) > 1)
}
