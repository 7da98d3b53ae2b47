use std::path::{Path, PathBuf};

/// Why a machine could not be made or could not go on. The kinds are the exit codes that the command line documents.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The configuration asks for something that no machine here has.
    #[error("{0}")]
    Config(String),
    /// The host lacks something or refused something.
    #[error("{0}")]
    Host(String),
    /// A file is missing, unreadable, or not what it should be.
    #[error("{what} {path}: {why}", path = .path.display())]
    File {
        /// What it was to be: "kernel", "initrd", ...
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// One clause.
        why: String,
    },
    /// The guest went wrong in a way that no machine can continue from.
    #[error("{0}")]
    Guest(String),
}

impl MachineError {
    /// A KVM ioctl failed.
    pub(crate) fn kvm(ioctl: &str, error: impl Into<std::io::Error>) -> MachineError {
        MachineError::Host(format!("{ioctl} failed: {}", error.into()))
    }

    /// Something is wrong with a file.
    pub(crate) fn file(what: &'static str, path: &Path, why: impl ToString) -> MachineError {
        MachineError::File { what, path: path.into(), why: why.to_string() }
    }
}
