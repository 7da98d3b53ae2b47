//! Counts by perf events, for kernels whose tracefs cannot count. There are no stacks, and kernel functions are counted
//! only if the kernel has a kprobe PMU.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use super::EvidenceError;
use super::names::parse;
use super::tracefs::{failed, tracefs};

/// The PMU that counts calls of kernel functions (CONFIG_KPROBE_EVENTS).
const KPROBE: &str = "/sys/bus/event_source/devices/kprobe/type";
/// PERF_TYPE_TRACEPOINT.
const TRACEPOINT: u32 = 2;
/// PERF_ATTR_SIZE_VER1: `perf_event_attr` up to `config2` inclusive.
const ATTR_SIZE: u32 = 72;
/// Any process; no group.
const NONE: libc::c_long = -1;
/// PERF_FLAG_FD_CLOEXEC.
const CLOEXEC: libc::c_ulong = 8;

/// One counter per name and CPU. The descriptors are closed on drop, and by the kernel if the process is killed.
#[derive(Debug)]
pub(super) struct Perf {
    root: PathBuf,
    counters: Vec<(String, Vec<File>)>,
}

impl Perf {
    /// # Errors
    /// tracefs, which lists the numbers of tracepoints, cannot be used.
    pub fn open() -> Result<Perf, EvidenceError> {
        Ok(Perf { root: tracefs()?.into(), counters: Vec::new() })
    }

    /// Counts `name`, a function or `group:tracepoint`, from now on. Returns why this kernel has nothing of that name, if so.
    pub fn count(&mut self, name: &str) -> Result<Option<&'static str>, EvidenceError> {
        if parse(name).1.is_some() {
            self.counters.push((name.into(), Vec::new()));
            return Ok(Some("perf events cannot read an argument"));
        }
        let opened = match name.split_once(':') {
            Some((group, event)) => {
                let id = self.root.join("events").join(group).join(event).join("id");
                number(&id).map(|id| on_all_cpus(TRACEPOINT, id, None))
            }
            None => number(Path::new(KPROBE)).map(|pmu| on_all_cpus(pmu as u32, 0, Some(name))),
        };
        let counters = match opened {
            Some(Ok(counters)) => counters,
            // No such function, or one that cannot be probed.
            Some(Err(error)) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                Vec::new()
            }
            Some(Err(error)) => return Err(failed(Path::new("perf_event_open"), error)),
            None => Vec::new(),
        };
        let absent = counters.is_empty().then_some(match name.contains(':') {
            true => "this kernel has no such tracepoint",
            false => "this kernel has no such function, or cannot count functions",
        });
        self.counters.push((name.into(), counters));
        Ok(absent)
    }

    /// Hits of `name` so far; `None`: absent.
    pub fn hits(&self, name: &str) -> Result<Option<u64>, EvidenceError> {
        let found = self.counters.iter().find(|(counted, _)| counted == name);
        let Some((_, counters)) = found.filter(|(_, counters)| !counters.is_empty()) else { return Ok(None) };
        let mut sum = 0;
        for mut counter in counters {
            let mut count = [0; 8];
            counter.read_exact(&mut count).map_err(|error| failed(Path::new("perf event"), error))?;
            sum += u64::from_ne_bytes(count);
        }
        Ok(Some(sum))
    }
}

/// The number in a file; `None` if there is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn on_all_cpus(kind: u32, config: u64, function: Option<&str>) -> io::Result<Vec<File>> {
    let function = function.map(CString::new).transpose()?;
    let address = function.as_ref().map_or(0, |name| name.as_ptr() as u64);
    // type and size, config, period, sample type, read format, flags, wake-up, config1 (the function), config2 (offset)
    let attr = [u64::from(kind) | u64::from(ATTR_SIZE) << 32, config, 0, 0, 0, 0, 0, address, 0];
    // SAFETY: takes no pointer.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    let one = |cpu: libc::c_long| {
        // SAFETY: `attr` has the size in its second field, and `function` lives until the call returns.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), NONE, cpu, NONE, CLOEXEC) };
        match fd {
            // SAFETY: a new descriptor that nobody else has.
            0.. => Ok(Some(unsafe { File::from_raw_fd(fd as i32) })),
            _ => match io::Error::last_os_error() {
                // The CPU is offline.
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    };
    (0..cpus).filter_map(|cpu| one(cpu).transpose()).collect()
}
