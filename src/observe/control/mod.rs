//! The control socket: other processes inspect a live VM and switch its paths.
//!
//! What lives here: the protocol, the server in the VMM, and the client of `inspect`, `ctl` and `trace`. What may not:
//! code that runs on an I/O thread. Requests and answers are single lines of JSON over a Unix socket (mode 0600):
//!
//! ```text
//! {"doorbell":1,"verb":"inspect","section":"routes"}
//! {"doorbell":1,"verb":"switch","disk":"disk0","complete":"signal-msi"}
//! {"doorbell":1,"verb":"trace-start","capacity":65536}      {"doorbell":1,"verb":"trace-stop"}
//! {"doorbell":1,"ok":...}      {"doorbell":1,"error":{"kind":"usage","message":"..."}}
//! ```

mod client;
mod server;
mod switch;

use serde::{Deserialize, Serialize};

pub use client::{Client, ControlError};
pub use server::{ControlServer, ServeError};
pub use switch::InForce;

/// Version of the protocol; every line contains it.
pub const PROTOCOL: u32 = 1;

/// Longest request line, in bytes.
const MAX_REQUEST: usize = 4096;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Returns the VM's tables.
    Inspect {
        /// One of [`super::inspect::SECTIONS`], or "all".
        section: String,
    },
    /// Switches paths of a live disk; returns the paths in force afterwards.
    Switch {
        /// "disk0".
        disk: String,
        /// A notify path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notify: Option<String>,
        /// A complete path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        complete: Option<String>,
        /// A setting of the moderation of interrupts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moderate: Option<String>,
    },
    /// Records requests from now on, until `trace-stop` or the end of the connection.
    TraceStart {
        /// Most requests recorded per queue.
        capacity: usize,
    },
    /// Ends the recording and returns it.
    TraceStop,
}

/// A line from a client.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    doorbell: u32,
    #[serde(flatten)]
    request: Request,
}

/// A line from the server: `ok` or `error`. Typed, so that a long trace never becomes a tree of JSON values.
#[derive(Debug, Serialize, Deserialize)]
struct Answer<T> {
    doorbell: u32,
    // Not `default`, which would require `T: Default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refusal>,
}

/// Why the VM refused a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// "usage": the request is wrong; "busy": try again later; "failed": the VM could not do it.
    pub kind: String,
    /// One sentence.
    pub message: String,
}

impl Refusal {
    fn new(kind: &str, message: impl Into<String>) -> Refusal {
        Refusal { kind: kind.into(), message: message.into() }
    }
}

impl<T> From<Result<T, Refusal>> for Answer<T> {
    fn from(result: Result<T, Refusal>) -> Answer<T> {
        let (ok, error) = match result {
            Ok(value) => (Some(value), None),
            Err(refusal) => (None, Some(refusal)),
        };
        Answer { doorbell: PROTOCOL, ok, error }
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
