//! The probe bench: every path of the dataplane, timed by a guest that does nothing else, beside a floor without virtio.
//! All run in one guest, in short interleaved blocks.
//!
//! | file | what |
//! |---|---|
//! | `config`, `error` | what to measure; why it failed |
//! | `mailbox` | jobs and outcomes in the guest's memory, whichever VMM runs it |
//! | `session` | the probe in a VM of ours, which takes blocks one by one |
//! | `floor` | the host's side of the bare ping-pong |
//! | `no_irqchip` | the same ping-pong in a VM without interrupt controllers: KVM_INTERRUPT |
//! | `one_way` | splits a disk's round trips at the dataplane's timestamps |
//! | `work` | the workloads, and the work of one block |
//! | `variants` | the compared disks |
//! | `peer`, `qemu` | the reference VMM ("peer" in reports): the same guest in QEMU, in the same run |
//! | `bench` | everything that blocks need |
//! | `run` | the order of the blocks |
//! | `blocks` | one block of each kind, with the counts during it |
//! | `row_stats`, `rows` | the sums of one row's blocks; the row in the report |
//! | `host_support` | optional features of this host |
//! | `startup` | time to the guest's first instruction, and resident memory |

mod bench;
mod blocks;
mod config;
mod error;
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
mod work;

pub use config::{PeerVmm, ProbeConfig};
pub use error::{FloorError, ProbeError, SessionError};
pub use mailbox::Mailbox;
pub use run::run;
pub use session::{Session, SessionConfig, SessionParts};
