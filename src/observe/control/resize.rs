use serde::{Deserialize, Serialize};

use super::Refusal;
use super::switch::find;
use crate::backend::DiskError;
use crate::observe::VmParts;

/// A disk after a resize.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    /// "disk0".
    pub disk: String,
    /// Bytes that the guest sees now.
    pub size: u64,
    /// Bytes that it saw before.
    pub before: u64,
}

/// Takes over the size of the disk's file, or its first `size` bytes.
pub(super) fn resize(parts: &VmParts, name: &str, size: Option<u64>) -> Result<Resized, Refusal> {
    let (n, device) = find(parts, name)?;
    let image = parts.images.get(n).and_then(Option::as_ref).ok_or_else(|| {
        Refusal::new("usage", format!("{name}: its vhost-user backend decides its size; resize it there"))
    })?;
    let (mut now, mut before) = (0, 0);
    let tell = |sectors| {
        (now, before) = (sectors, device.capacity());
        device.set_capacity(sectors);
    };
    image.resize(size, tell).map_err(|error| {
        let kind = if matches!(error, DiskError::Io { .. }) { "failed" } else { "usage" };
        Refusal::new(kind, format!("{name} keeps its size: {error}"))
    })?;
    Ok(Resized { disk: name.into(), size: now * 512, before: before * 512 })
}
