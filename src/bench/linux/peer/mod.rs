//! Reference VMMs beside ours: the same kernel, initrd, jobs and a disk file made alike, step by step in turn, with the
//! others stopped meanwhile.
//!
//! What lives here: which programs (`spec`), how they are started (`command`), what their guests are told (`script`), one
//! guest of theirs (`guest`), fio without a guest (`host_fio`), and whose turn it is (`turns`). What may not: our own
//! VM, and what a row looks like.

mod command;
mod exits;
mod guest;
mod host_fio;
mod script;
mod spec;
mod turns;

pub use command::VmFacts;
pub use spec::{Peer, PeerKind, PeerSpec};
pub use turns::{Done, Files, Turns};
