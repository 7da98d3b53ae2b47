//! Restricts what a thread may ask of the kernel, once everything is open.
//!
//! What lives here: the mechanism. A [`Profile`] is what one kind of thread keeps: system calls ([`Allowed`]), a
//! Landlock domain ([`Right`]), no capability, no new privilege. [`confine`] makes all threads of a VM enter theirs. What
//! may not: the tables of who needs what; they stand where KVM, VFIO and the threads are known.

mod abilities;
mod capabilities;
mod confine;
mod files;
mod filter;
mod profile;
mod violation;

use strum::{Display, EnumString, VariantNames};

pub use abilities::Abilities;
pub use confine::{ConfineError, confine};
pub use files::{Files, Right};
pub(crate) use filter::calls;
pub use filter::{Allowed, Arguments, Call};
pub use profile::Profile;
pub use violation::{EXIT_CODE, on_violation};

/// Whether a VM's threads are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum SandboxMode {
    /// They are. A system call that is not in a thread's table ends the process.
    #[default]
    On,
    /// They are not. The kernel logs each system call that is not in the table (`journalctl -k`, "SECCOMP").
    Log,
    /// They are not, and nothing is logged.
    Off,
}
