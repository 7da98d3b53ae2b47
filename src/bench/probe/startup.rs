use std::fs;
use std::ops::Range;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::config::DISK_BYTES;
use super::error::SessionError;
use super::floor::{counters_agree, tsc};
use super::session::{Session, SessionConfig};
use crate::backend::{BackendKind, DiskOptions};
use crate::host::sandbox::SandboxMode;
use crate::machine::Ram;
use crate::vm::{DiskConfig, IoThreadChoice, ThreadConfig};

/// Start-up time and memory of a VM with one disk and one I/O thread.
pub(super) struct Startup {
    /// Time from the VM's construction, files and threads included, to the guest's first instruction.
    pub first_instruction_ns: Option<u64>,
    /// Resident memory of this process beyond guest RAM.
    pub resident_bytes: Option<u64>,
}

impl Startup {
    /// Boots such a VM and stops it.
    ///
    /// # Errors
    /// The VM could not be started.
    pub fn measure(ticks_per_second: f64, sandbox: SandboxMode) -> Result<Startup, SessionError> {
        let options = DiskOptions {
            path: None,
            readonly: false,
            kind: BackendKind::Null,
            size: Some(DISK_BYTES),
            direct: false,
            delay_us: 0,
        };
        let disk = DiskConfig { iothread: IoThreadChoice::Index(0), ..DiskConfig::new(options) };
        let begun = tsc();
        let config = SessionConfig {
            disks: vec![disk],
            threads: vec![ThreadConfig::default()],
            cpus: 1,
            vcpu_pins: Vec::new(),
            sandbox,
        };
        let mut session = Session::start(config)?;
        let ticks = session.control().started.checked_sub(begun);
        // A counter with an offset cannot be compared with ours. A reading before our start shows such an offset.
        let ticks = ticks.filter(|_| counters_agree(&mut session).unwrap_or(false));
        Ok(Startup {
            first_instruction_ns: ticks.map(|ticks| (ticks as f64 * 1e9 / ticks_per_second) as u64),
            resident_bytes: resident_beyond(&session.parts().memory),
        })
    }
}

fn resident_beyond(ram: &Ram) -> Option<u64> {
    let guest: Vec<_> =
        ram.iter().map(|region| region.as_ptr() as u64..region.as_ptr() as u64 + region.len()).collect();
    resident(&fs::read_to_string("/proc/self/smaps").ok()?, &guest)
}

/// Resident bytes of those mappings in `smaps` (proc_pid_smaps(5)) that begin outside all ranges in `without`.
fn resident(smaps: &str, without: &[Range<u64>]) -> Option<u64> {
    let (mut sum, mut counts) = (None, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        if first == "Rss:" {
            let kib: u64 = words.next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(0) + if counts { kib * 1024 } else { 0 });
        } else if let Some((start, _)) = first.split_once('-') {
            let start = u64::from_str_radix(start, 16).ok()?;
            counts = !without.iter().any(|range| range.contains(&start));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0a000-55d0c000 r-xp 00000000 08:01 42                         /usr/bin/doorbell
Size:                  8 kB
Rss:                   8 kB
Pss:                   4 kB
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Rss:               16384 kB
VmFlags: rd wr dd hg
7f0008000000-7f0008001000 rw-p 00000000 00:00 0
Rss:                   4 kB
";

    #[test]
    fn guest_memory_does_not_count() {
        let ram = 0x7f00_0000_0000..0x7f00_0800_0000;
        assert_eq!(resident(SMAPS, &[ram]), Some(12 << 10));
        assert_eq!(resident(SMAPS, &[]), Some((16384 + 12) << 10));
        assert_eq!(resident("", &[]), None);
        assert_eq!(resident("1-2 r\nRss: many kB\n", &[]), None);
    }

    #[test]
    fn this_process_has_some() {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(resident(&text, &[]).is_some_and(|bytes| bytes > 4096));
    }
}
