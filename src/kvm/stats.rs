//! KVM's statistics (`KVM_GET_STATS_FD`, KVM API 4.133): self-describing counters of a VM or a vCPU.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::KVMIO;
use serde::Serialize;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);

const HEADER_LEN: usize = 24;
/// Bytes of `struct kvm_stats_desc` without the name that follows it.
const DESC_LEN: usize = 16;
/// More descriptors than any kernel has. A header that claims more is rejected.
const MAX_DESCRIPTORS: u32 = 4096;
const MAX_NAME: u32 = 1024;

/// How a value changes over time (`KVM_STATS_TYPE_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A count that only grows, so the difference of two readings is meaningful.
    Cumulative,
    /// A present level, or a peak.
    Level,
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: String,
    /// Offset in bytes from the start of the file.
    at: u64,
    kind: Kind,
}

/// The statistics of one VM or vCPU. Reading them neither stops nor slows it.
#[derive(Debug)]
pub struct KvmStats {
    file: File,
    fields: Vec<Field>,
}

/// One reading: values by the kernel's names for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StatsSnapshot {
    values: BTreeMap<String, u64>,
    #[serde(skip)]
    levels: Vec<String>,
}

impl KvmStats {
    /// Opens the statistics of `fd`, a VM or vCPU descriptor. Returns `None` on a kernel without them (before 5.14).
    ///
    /// # Errors
    /// The kernel has statistics, and opening or reading them failed.
    pub fn of(fd: &impl AsRawFd) -> io::Result<Option<KvmStats>> {
        // SAFETY: the ioctl takes no argument.
        let stats = unsafe { ioctl(fd, KVM_GET_STATS_FD()) };
        if stats < 0 {
            let error = io::Error::last_os_error();
            let absent = matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL));
            return if absent { Ok(None) } else { Err(error) };
        }
        // SAFETY: just opened; nothing else owns it.
        let file = unsafe { File::from_raw_fd(stats) };
        let fields = describe(|buffer, at| file.read_exact_at(buffer, at))?;
        Ok(Some(KvmStats { file, fields }))
    }

    /// Reads all values.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read(&self) -> io::Result<StatsSnapshot> {
        let mut snapshot = StatsSnapshot::default();
        for field in &self.fields {
            let mut value = [0; 8];
            self.file.read_exact_at(&mut value, field.at)?;
            snapshot.values.insert(field.name.clone(), u64::from_ne_bytes(value));
            if field.kind == Kind::Level {
                snapshot.levels.push(field.name.clone());
            }
        }
        Ok(snapshot)
    }
}

impl StatsSnapshot {
    /// Returns the value of `name`, or `None` if this kernel does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }

    /// Returns all values in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.values.iter().map(|(name, &value)| (name.as_str(), value))
    }

    /// Returns the difference to `earlier`. Levels and peaks keep their present value.
    pub fn since(&self, earlier: &StatsSnapshot) -> StatsSnapshot {
        let mut delta = self.clone();
        for (name, value) in &mut delta.values {
            if !self.levels.contains(name) {
                *value = value.saturating_sub(earlier.get(name).unwrap_or(0));
            }
        }
        delta
    }

    /// Adds the values of `other`, the reading of another vCPU, name by name.
    pub fn add(&mut self, other: &StatsSnapshot) {
        for (name, value) in &other.values {
            *self.values.entry(name.clone()).or_default() += value;
        }
        if self.levels.is_empty() {
            self.levels.clone_from(&other.levels);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Reads the header and the descriptors. Skips histograms, which nothing here uses.
fn describe(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Vec<Field>> {
    let mut header = [0; HEADER_LEN];
    read(&mut header, 0)?;
    let (name_len, count) = (word(&header, 4), word(&header, 8));
    let (desc_at, data_at) = (u64::from(word(&header, 16)), u64::from(word(&header, 20)));
    if name_len > MAX_NAME || count > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "KVM's statistics have an unknown layout"));
    }
    let len = DESC_LEN + name_len as usize;
    let mut descriptors = vec![0; len * count as usize];
    read(&mut descriptors, desc_at)?;
    let field = |desc: &[u8]| {
        let (flags, values) = (word(desc, 0), word(desc, 4) >> 16);
        let kind = match flags & 0xf {
            0 => Kind::Cumulative,
            1 | 2 => Kind::Level,
            _ => return None,
        };
        let name = desc[DESC_LEN..].split(|&byte| byte == 0).next()?;
        let name = String::from_utf8_lossy(name).into_owned();
        (values == 1).then(|| Field { name, at: data_at + u64::from(word(desc, 8)), kind })
    };
    Ok(descriptors.chunks_exact(len).filter_map(field).collect())
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
