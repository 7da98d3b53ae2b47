//! A command in the guest image: its output on the console, its exit status in the marker register.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::archive::Cpio;
use super::fio_file::Section;
use crate::bench::memfile::MemFile;
use crate::machine::bus::BusDevice;
use crate::machine::layout;

/// Above the status: a status was stored. A guest that ends otherwise leaves 0.
const STORED: u32 = 1 << 16;
/// How long the guest waits for its disk.
const DISK_SECONDS: u32 = 30;

/// The kernel command line of such a guest: what the kernel says would be between the command's lines.
pub const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1";

/// What the guest does.
#[derive(Debug)]
pub enum Command {
    /// A program and its arguments.
    Words(Vec<String>),
    /// Sections of a job file for fio, one after the other, on the disk with this serial number.
    Fio(Vec<Section>, String),
}

impl Command {
    /// The initial ramdisk `given` with the command in it. `terminal`: a person sits at the console.
    ///
    /// # Errors
    /// It cannot be read, or there is no memory.
    pub fn initrd(&self, given: &Path, terminal: bool) -> std::io::Result<Initrd> {
        let mut bytes = std::fs::read(given)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let mut cpio = Cpio::default();
        cpio.directory("job");
        cpio.file("job/run", 0o755, run(terminal).as_bytes());
        cpio.file("job/command", 0o755, self.script().as_bytes());
        if let Command::Fio(sections, _) = self {
            for (n, section) in sections.iter().enumerate() {
                cpio.file(&format!("job/{n}.fio"), 0o644, section.file().as_bytes());
            }
        }
        bytes.extend(cpio.finish());
        Ok(Initrd(MemFile::of(&bytes)?))
    }

    fn script(&self) -> String {
        match self {
            Command::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                format!("#!/bin/sh\ncd /root\nexec {}\n", words.join(" "))
            }
            Command::Fio(sections, serial) => {
                let serial = quoted(serial);
                let disk = format!(
                    "export RUNTIME=10 DISK\nDISK=$(disk_by_serial {serial} {DISK_SECONDS}) || exit 1\n"
                );
                let runs = (0..sections.len()).map(|n| format!("fio --eta=never {n}.fio || exit $?\n"));
                format!("#!/bin/sh\ncd /job\n{disk}{}", runs.collect::<String>())
            }
        }
    }
}

/// Starts the command and stores its status.
fn run(terminal: bool) -> String {
    // Without a terminal on our side, lines end as they do in a pipe, and nothing is typed.
    let start = match terminal {
        true => "setsid cttyhack ./command",
        false => "stty -opost -echo </dev/console\n./command </dev/null",
    };
    // The kernel says "Power down" whatever loglevel= is; it is not the command's.
    format!(
        "#!/bin/sh\nexec >/dev/console 2>&1\n{start}\nstatus=$?\nsync\necho 0 >/proc/sys/kernel/printk\ndevmem {:#x} 32 $(({STORED} + status))\npoweroff -f\n",
        layout::EMBEDDER_START
    )
}

/// A word as the shell takes it without change.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A ramdisk in memory.
#[derive(Debug)]
pub struct Initrd(MemFile);

impl Initrd {
    /// Where this process finds it, while it lives.
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }
}

/// The register that the guest stores the command's exit status to.
#[derive(Debug, Default)]
pub struct ExitStatus(AtomicU32);

impl ExitStatus {
    /// The status; `None`: the guest ended without one.
    pub fn get(&self) -> Option<u8> {
        let stored = self.0.load(Ordering::Acquire);
        (stored & STORED != 0).then_some(stored as u8)
    }
}

impl BusDevice for ExitStatus {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, Ok(word)) = (offset, data.try_into()) {
            self.0.store(u32::from_le_bytes(word), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::linux::fio_file::sections;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let words = ["printf", "%s\n", "it's", "a b", "$HOME"].map(String::from).to_vec();
        let script = Command::Words(words).script().replace("cd /root\n", "");
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "it's\na b\n$HOME\n");
    }

    #[test]
    fn sections_run_one_after_the_other_on_the_disk() {
        let script = Command::Fio(sections("[a]\n[b]\n").unwrap(), "disk0".into()).script();
        assert!(
            script.contains("disk_by_serial 'disk0'")
                && script.ends_with("fio --eta=never 1.fio || exit $?\n")
        );
    }

    #[test]
    fn a_status_is_told_from_none_and_other_widths_are_ignored() {
        let status = ExitStatus::default();
        status.write(0, &[1, 0]);
        assert_eq!(status.get(), None);
        status.write(0, &(STORED + 7).to_le_bytes());
        assert_eq!(status.get(), Some(7));
        status.write(0, &STORED.to_le_bytes());
        assert_eq!(status.get(), Some(0));
    }
}
