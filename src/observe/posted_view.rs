use serde::{Deserialize, Serialize};

use crate::host::{Posted, Posting};

/// Whether interrupts reach a running vCPU without an exit: the two facts of [`Posting`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostedView {
    /// Those that KVM delivers: by an irqfd, by KVM_SIGNAL_MSI.
    pub to_vcpu: Posted,
    /// Those of a passed-through device.
    pub by_device: Posted,
}

impl PostedView {
    /// As this host is now: a module may have been loaded anew, with another parameter.
    pub fn here() -> PostedView {
        let posting = Posting::here();
        PostedView { to_vcpu: posting.to_vcpu(), by_device: posting.by_device() }
    }
}
