//! The compared disks: ours, each on its own path, and passed-through ones.

use std::fmt;

use super::peer::Peer;
use crate::backend::BackendKind;
use crate::bench::{PathPair, Row};
use crate::dataplane::{CompletePath, Moderation};
use crate::vfio::{IrqPath, VfioSpec};

/// The value of the backend column for a passed-through disk.
pub const VFIO: &str = "vfio";

/// One compared disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A virtio disk of ours.
    Disk(PathPair, Moderation),
    /// A disk controller of the host, with the guest's own driver.
    Passed(VfioSpec),
    /// A reference VMM with a disk like ours.
    Peer(Peer),
}

impl Variant {
    /// The path of a disk of ours, and its moderation.
    pub fn disk(&self) -> Option<(PathPair, Moderation)> {
        match self {
            Variant::Disk(path, moderation) => Some((*path, *moderation)),
            Variant::Passed(_) | Variant::Peer(_) => None,
        }
    }

    /// The device that is passed through.
    pub fn passed(&self) -> Option<VfioSpec> {
        match self {
            Variant::Disk(..) | Variant::Peer(_) => None,
            Variant::Passed(spec) => Some(*spec),
        }
    }

    /// The columns that name a row; `disk` has those that all our disks share. Notify path and queues of a passed-through
    /// device are `None`: it has no notify path of ours, and its driver chooses its queues.
    pub fn name(&self, disk: &Row, backend: BackendKind) -> Row {
        match self {
            Variant::Disk(path, moderation) => Row {
                notify: Some(path.notify.to_string()),
                complete: Some(path.complete.to_string()),
                moderate: Some(moderation.to_string()),
                ring: Some("split".into()),
                ..disk.clone()
            },
            Variant::Passed(spec) => Row {
                guest: disk.guest.clone(),
                complete: Some(complete(spec.irq).to_string()),
                backend: Some(VFIO.into()),
                device: Some(spec.bdf.to_string()),
                ..Row::default()
            },
            Variant::Peer(peer) => peer.row(disk, backend),
        }
    }
}

/// The last step of a device's interrupt, named like a disk's complete path.
fn complete(irq: IrqPath) -> CompletePath {
    match irq {
        IrqPath::Kernel => CompletePath::Irqfd,
        IrqPath::User => CompletePath::SignalMsi,
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Variant::Disk(path, Moderation::Off) => path.fmt(f),
            Variant::Disk(path, _) => write!(f, "{path} moderated"),
            Variant::Passed(spec) => write!(f, "vfio {} irq={}", spec.bdf, spec.irq),
            Variant::Peer(peer) => f.write_str(&peer.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_through_disk_has_nothing_of_ours_but_the_last_step_of_its_interrupt() {
        let disk = Row { guest: "linux".into(), queues: Some(1), poll_us: Some(0), ..Row::default() };
        for (text, complete) in [("01:00.0", "irqfd"), ("01:00.0,irq=user", "signal-msi")] {
            let variant = Variant::Passed(text.parse().unwrap());
            let row = variant.name(&disk, BackendKind::Sync);
            assert_eq!((row.backend.as_deref(), row.complete.as_deref()), (Some(VFIO), Some(complete)));
            assert_eq!(row.device.as_deref(), Some("0000:01:00.0"));
            assert_eq!(
                (row.guest.as_str(), row.notify, row.queues, row.poll_us),
                ("linux", None, None, None)
            );
        }
    }
}
