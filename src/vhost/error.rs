use std::path::PathBuf;

use thiserror::Error;

/// Why a vhost-user backend cannot be used.
#[derive(Debug, Error)]
pub enum VhostError {
    /// No connection.
    #[error("vhost-user backend {}: cannot connect: {source}{}", .path.display(), hint(.source))]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// errno.
        source: std::io::Error,
    },
    /// A thread or a descriptor is missing on our side.
    #[error("vhost-user backend {}: {source}", .path.display())]
    Host {
        /// Its socket.
        path: PathBuf,
        /// errno.
        source: std::io::Error,
    },
    /// A request failed: the backend refused it, broke the protocol, did not reply in time, or is gone.
    #[error("vhost-user backend {}: {request}: {why}", .path.display())]
    Request {
        /// Its socket.
        path: PathBuf,
        /// The request, as the protocol calls it.
        request: &'static str,
        /// What happened.
        why: String,
    },
    /// It lacks something that is needed.
    #[error("vhost-user backend {}: it {lacks}", .path.display())]
    Lacks {
        /// Its socket.
        path: PathBuf,
        /// What it lacks.
        lacks: String,
    },
}

fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "; start the backend first, it makes the socket",
        std::io::ErrorKind::ConnectionRefused => {
            "; the process that made the socket is gone: start the backend again"
        }
        _ => "",
    }
}
