use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::dataplane::{CompletePath, Moderation};
use crate::observe::VmParts;
use crate::virtio::{NotifyPath, VirtioBlk, VirtioError};

/// The paths of a disk after a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// "disk0".
    pub disk: String,
    /// Notify path.
    pub notify: String,
    /// Complete path.
    pub complete: String,
    /// How interrupts are held back.
    #[serde(default)]
    pub moderate: String,
}

/// Switches a live disk. All values are parsed before anything is changed.
pub(super) fn switch(
    parts: &VmParts,
    name: &str,
    notify: Option<&str>,
    complete: Option<&str>,
    moderate: Option<&str>,
) -> Result<InForce, Refusal> {
    let (_, disk) = find(parts, name)?;
    let notify = notify.map(|text| word::<NotifyPath>("notify", text, &NotifyPath::NAMES)).transpose()?;
    let complete =
        complete.map(|text| word::<CompletePath>("complete", text, &CompletePath::NAMES)).transpose()?;
    let moderation = moderate.map(|text| {
        let wrong = |()| Refusal::new("usage", format!("moderate={text}: use auto, off, or N:US"));
        text.parse::<Moderation>().map_err(wrong)
    });
    let moderation = moderation.transpose()?;
    if let Some(path) = notify {
        disk.set_notify_path(path).map_err(|error| {
            let kind = if matches!(error, VirtioError::OtherSpace { .. }) { "usage" } else { "failed" };
            Refusal::new(kind, error.to_string())
        })?;
    }
    if let Some(path) = complete {
        let interrupts = disk.device_interrupts();
        let kind = if path.is_level() || interrupts.path().is_level() { "usage" } else { "failed" };
        disk.set_complete_path(path).map_err(|error| Refusal::new(kind, format!("{name}: {error}")))?;
    }
    if let Some(moderation) = moderation {
        disk.moderation().set(moderation);
    }
    Ok(InForce {
        disk: disk.config().name.clone(),
        notify: disk.view().notify.to_string(),
        complete: disk.device_interrupts().path().to_string(),
        moderate: disk.moderation().get().to_string(),
    })
}

/// The disk of that name, and which one it is.
pub(super) fn find<'a>(parts: &'a VmParts, name: &str) -> Result<(usize, &'a VirtioBlk), Refusal> {
    let found = parts.disks.iter().enumerate().find(|(_, disk)| disk.config().name == name);
    found.map(|(n, disk)| (n, &**disk)).ok_or_else(|| {
        let names: Vec<_> = parts.disks.iter().map(|disk| disk.config().name.as_str()).collect();
        let there =
            if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) };
        Refusal::new("usage", format!("the VM has no disk called {name:?}; {there}"))
    })
}

fn word<T: FromStr>(key: &str, text: &str, names: &[(&str, T)]) -> Result<T, Refusal> {
    text.parse().map_err(|_| {
        let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        Refusal::new("usage", format!("{key}={text}: use one of {}", names.join(", ")))
    })
}
