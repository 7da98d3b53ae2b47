//! The probe bench: every ring of the dataplane, timed by a guest that does nothing else, against a floor without
//! virtio, in one guest and in short interleaved blocks.
//!
//! | file | what |
//! |---|---|
//! | `mailbox` | plans and outcomes in the guest's memory, whoever runs it |
//! | `session` | the probe in a machine of ours, taking blocks one by one through its memory |
//! | `floor` | the host's side of the bare ping-pong |
//! | `no_irqchip` | the same ping-pong in a VM without interrupt controllers: KVM_INTERRUPT |
//! | `one_way` | round trips of a disk taken apart by the dataplane's stamps |
//! | `variants` | our disks that are compared, and the jobs |
//! | `peer`, `qemu` | the same guest in QEMU, in the same run |
//! | `run` | which blocks, in which order |
//! | `blocks` | one block of each kind, with what was counted meanwhile |
//! | `rows` | what the blocks become in the report |
//! | `support` | what of that this host has |
//! | `startup` | how long a machine takes to its guest's first instruction, and how much memory |
//! | `row_stats` | what the rounds of one row add up to |

mod blocks;
mod floor;
mod host_support;
mod mailbox;
mod no_irqchip;
mod one_way;
mod peer;
mod qemu;
mod row_stats;
mod rows;
mod run;
mod session;
mod startup;
mod variants;

pub use mailbox::Mailbox;
pub use run::{PeerVmm, ProbeConfig, ProbeError, run};
pub use session::{Session, SessionConfig, SessionError};
