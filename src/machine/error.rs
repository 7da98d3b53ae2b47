use std::path::{Path, PathBuf};

/// Why a machine cannot be created or cannot continue. Each kind has an exit code, which the command line documents.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The configuration requests something that the machine does not offer.
    #[error("{0}")]
    Config(String),
    /// The host lacks something, or refused a system call.
    #[error("{0}")]
    Host(String),
    /// A file is missing, unreadable, or of the wrong kind.
    #[error("{what} {path}: {why}", path = .path.display())]
    File {
        /// The role of the file: "kernel", "initrd", ...
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The reason, one clause.
        why: String,
    },
    /// The guest cannot continue.
    #[error("{0}")]
    Guest(String),
}

impl MachineError {
    /// Returns the error for a KVM ioctl that failed.
    pub(crate) fn kvm(ioctl: &str, error: impl Into<std::io::Error>) -> MachineError {
        MachineError::Host(format!("{ioctl} failed: {}", error.into()))
    }

    /// Returns the error for a file, with the reason `why`.
    pub(crate) fn file(what: &'static str, path: &Path, why: impl ToString) -> MachineError {
        MachineError::File { what, path: path.into(), why: why.to_string() }
    }
}
