//! Which reference VMMs: `qemu`, `qemu=FILE`, `cloud-hypervisor=FILE`, `host`.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::backend::BackendKind;
use crate::bench::Row;

/// What is measured beside doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// QEMU's system emulator, with KVM.
    Qemu,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// fio on the host, without a VM: what the file itself can do.
    Host,
}

/// Each with its name, which is [`Row::peer`], and its program.
const KINDS: [(PeerKind, &str, &str); 3] = [
    (PeerKind::Qemu, "qemu", "qemu-system-x86_64"),
    (PeerKind::CloudHypervisor, "cloud-hypervisor", "cloud-hypervisor"),
    (PeerKind::Host, "host", "fio"),
];

impl PeerKind {
    fn names(self) -> (&'static str, &'static str) {
        let named = KINDS.iter().find(|(kind, ..)| *kind == self);
        named.map_or(("", ""), |(_, name, program)| (name, program))
    }
}

/// A reference VMM as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// Which.
    pub kind: PeerKind,
    /// Its program; `None`: from the `PATH`.
    pub file: Option<PathBuf>,
}

impl FromStr for PeerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerSpec, String> {
        let (name, file) =
            text.split_once('=').map_or((text, None), |(name, file)| (name, Some(PathBuf::from(file))));
        let known = KINDS.iter().find(|(_, known, _)| *known == name);
        match known {
            Some((kind, ..)) if file.as_ref().is_none_or(|file| !file.as_os_str().is_empty()) => {
                Ok(PeerSpec { kind: *kind, file })
            }
            _ => Err(
                "it is qemu, cloud-hypervisor or host (fio without a VM); =FILE may follow and names the \
                      program"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for PeerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.names().0)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "={}", file.display()))
    }
}

/// A reference VMM whose program exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub kind: PeerKind,
    /// Its program.
    pub program: PathBuf,
    /// [`Row::peer`]: "qemu", and with the file if there are several of the kind.
    pub name: String,
}

impl Peer {
    /// All of `specs`.
    ///
    /// # Errors
    /// A program is missing or cannot be executed, or one is there twice: one sentence.
    pub fn all(specs: &[PeerSpec]) -> Result<Vec<Peer>, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let one = |(n, spec): (usize, &PeerSpec)| {
            if specs[..n].contains(spec) {
                return Err(format!("--peer names {spec} twice; leave one out"));
            }
            let alone = specs.iter().filter(|other| other.kind == spec.kind).count() == 1;
            let (name, program) = spec.kind.names();
            let program = match &spec.file {
                Some(file) => executable(file).map(|()| file.clone()),
                None => std::env::split_paths(&path)
                    .map(|directory| directory.join(program))
                    .find(|file| executable(file).is_ok())
                    .ok_or(format!("{program} is not installed; install it, or name it with {name}=FILE")),
            };
            let program = program.map_err(|why| format!("--peer {spec}: {why}"))?;
            Ok(Peer { kind: spec.kind, program, name: if alone { name.into() } else { spec.to_string() } })
        };
        specs.iter().enumerate().map(one).collect()
    }

    /// The columns that name its rows. `disk` has those of our disks. A column is `None` where its code, not we, decides.
    pub fn row(&self, disk: &Row, backend: BackendKind) -> Row {
        let sync = backend == BackendKind::Sync;
        let named = Row { guest: disk.guest.clone(), peer: Some(self.name.clone()), ..Row::default() };
        let polls = disk.poll_us.filter(|&us| us > 0);
        match self.kind {
            PeerKind::Qemu => Row {
                // As in the probe's bench: an I/O thread completes by irqfd, and polls by default.
                notify: Some("fast-mmio".into()),
                complete: Some("irqfd".into()),
                wait: Some("memory-poll".into()),
                poll_us: Some(polls.unwrap_or(QEMU_POLLS_US)),
                backend: Some(if sync { "threads" } else { "io_uring" }.into()),
                queues: disk.queues,
                ..named
            },
            PeerKind::CloudHypervisor => Row {
                wait: Some("blocking".into()),
                backend: Some(if sync { "sync" } else { "io_uring" }.into()),
                queues: disk.queues,
                ..named
            },
            PeerKind::Host => Row { backend: Some("libaio".into()), ..named },
        }
    }
}

/// An iothread's default poll-max-ns, 32768, rounded up.
const QEMU_POLLS_US: u64 = 33;

fn executable(file: &Path) -> Result<(), String> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("there is no such file".into()),
        Err(error) => Err(format!("it cannot be read: {error}")),
        Ok(meta) if !meta.is_file() => Err("it is not a file".into()),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err("it is not executable (chmod +x)".into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
