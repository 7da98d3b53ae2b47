//! The value of `--disk`: `key=value` pairs and flags, separated by commas; `,,` in a value is one comma, as in QEMU.

mod nearest;
mod size;

use std::mem;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::backend::{BackendKind, DiskOptions};
use crate::dataplane::CompletePath;
use crate::virtio::{MAX_QUEUE_SIZE, MAX_QUEUES, NotifyPath};
use crate::vm::{DiskConfig, IoThreadChoice};

pub use nearest::nearest;
pub use size::parse_size;

/// Every key of `--disk`.
const KEYS: [&str; 16] = [
    "path",
    "vhost-user",
    "readonly",
    "backend",
    "size",
    "direct",
    "delay",
    "queues",
    "queue-size",
    "iothread",
    "notify",
    "complete",
    "event-idx",
    "notification-data",
    "moderate",
    "serial",
];

/// QEMU's names of some keys, and ours.
const QEMU_KEYS: [(&str, &str); 2] = [("file", "path"), ("num-queues", "queues")];

/// Why a `--disk` is invalid.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DiskArgError {
    /// An unknown key.
    #[error("--disk has no key {key:?}{}; its keys are {}", meant(.nearest), KEYS.join(", "))]
    UnknownKey {
        /// What was found.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A key given twice.
    #[error("--disk has {key} twice: leave one out")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// A key without its value.
    #[error("--disk: {key} needs a value: {allowed}")]
    NoValue {
        /// The key.
        key: &'static str,
        /// What it may be.
        allowed: String,
    },
    /// A value that is not allowed.
    #[error("--disk: {key}={value} is not allowed{}; {key} is {allowed}", meant(.nearest))]
    BadValue {
        /// The key.
        key: &'static str,
        /// What was found.
        value: String,
        /// What it may be.
        allowed: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// No file is given for a backend that reads one.
    #[error("--disk: backend={kind} needs a file: give path=FILE")]
    NoPath {
        /// The backend.
        kind: BackendKind,
    },
    /// No size is given for a backend without a file.
    #[error("--disk: backend={kind} without a path needs a size: give size=, for example size=1G")]
    NoSize {
        /// The backend.
        kind: BackendKind,
    },
    /// `delay` where the backend takes its own time.
    #[error("--disk: delay is for backend=null, not for backend={kind}: leave it out")]
    DelayWithoutNull {
        /// The backend.
        kind: BackendKind,
    },
    /// Keys that mean nothing to a disk that another process runs.
    #[error("--disk: {key} has no effect with vhost-user, whose backend decides that: leave it out")]
    NotWithVhostUser {
        /// The key.
        key: &'static str,
    },
    /// `direct` is given for a backend that reads no file.
    #[error("--disk: direct has no effect on backend={kind}, which reads no file: leave it out")]
    DirectWithoutFile {
        /// The backend.
        kind: BackendKind,
    },
}

/// Microseconds, 1 to 1,000,000.
fn delay_us(text: &str) -> Option<u32> {
    let units = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
    let (value, unit) = units.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let us = u32::from(number(value)?).checked_mul(unit)?;
    (1..=1_000_000).contains(&us).then_some(us)
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |n| format!(" (did you mean {n}?)"))
}

impl FromStr for DiskConfig {
    type Err = DiskArgError;

    fn from_str(text: &str) -> Result<DiskConfig, DiskArgError> {
        let pairs = Pairs::new(text)?;
        let options = DiskOptions {
            path: pairs.file("path", "a file or a block device")?,
            readonly: pairs.flag("readonly", false)?,
            kind: pairs.named("backend", &BackendKind::NAMES)?.unwrap_or(BackendKind::IoUring),
            size: pairs.parsed("size", "bytes, or a number with K, M, G or T", |v| {
                parse_size(v).filter(|&n| n > 0)
            })?,
            direct: pairs.flag("direct", false)?,
            delay_us: pairs.parsed("delay", "1us to 1s, for example 80us or 2ms", delay_us)?.unwrap_or(0),
        };
        let kind = options.kind;
        let vhost_user = pairs.file("vhost-user", "the backend's socket")?;
        if vhost_user.is_some() {
            let decided =
                ["path", "readonly", "backend", "size", "direct", "delay", "iothread", "moderate", "serial"];
            let given = |key: &&'static str| pairs.get(key).is_some();
            if let Some(key) = decided.into_iter().chain(["notification-data"]).find(given) {
                return Err(DiskArgError::NotWithVhostUser { key });
            }
        }
        match (&options.path, options.size) {
            _ if vhost_user.is_some() => {}
            (None, _) if kind.uses_file() => return Err(DiskArgError::NoPath { kind }),
            (None, None) => return Err(DiskArgError::NoSize { kind }),
            _ if options.direct && !kind.uses_file() => return Err(DiskArgError::DirectWithoutFile { kind }),
            _ if options.delay_us > 0 && kind != BackendKind::Null => {
                return Err(DiskArgError::DelayWithoutNull { kind });
            }
            _ => {}
        }
        let default = DiskConfig::new(options);
        Ok(DiskConfig {
            queues: pairs
                .parsed("queues", &format!("a number from 1 to {MAX_QUEUES}"), |v| {
                    number(v).filter(|n| (1..=MAX_QUEUES).contains(n))
                })?
                .unwrap_or(default.queues),
            queue_size: pairs
                .parsed("queue-size", &format!("a power of two from 2 to {MAX_QUEUE_SIZE}"), |v| {
                    number(v).filter(|n| (2..=MAX_QUEUE_SIZE).contains(n) && n.is_power_of_two())
                })?
                .unwrap_or(default.queue_size),
            iothread: pairs
                .parsed("iothread", "the number of an I/O thread (from 0), auto or none", iothread)?
                .unwrap_or(default.iothread),
            notify: pairs.named("notify", &NotifyPath::NAMES)?.unwrap_or(default.notify),
            complete: pairs.named("complete", &CompletePath::NAMES)?.unwrap_or(default.complete),
            event_idx: pairs.flag("event-idx", default.event_idx)?,
            notification_data: pairs.flag("notification-data", default.notification_data)?,
            moderation: pairs
                .parsed("moderate", "auto, off, or N:US (N completions, US microseconds at most)", |v| {
                    v.parse().ok()
                })?
                .unwrap_or(default.moderation),
            serial: pairs.parsed("serial", "1 to 20 printable ASCII characters", |v| {
                let fits = (1..=20).contains(&v.len()) && v.bytes().all(|b| (0x20..0x7f).contains(&b));
                fits.then(|| v.to_string())
            })?,
            vhost_user,
            ..default
        })
    }
}

fn number(text: &str) -> Option<u16> {
    // `parse` alone would accept a sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn iothread(text: &str) -> Option<IoThreadChoice> {
    match text {
        "auto" => Some(IoThreadChoice::Auto),
        "none" => Some(IoThreadChoice::None),
        _ => number(text).map(|n| IoThreadChoice::Index(n.into())),
    }
}

/// The pairs of one `--disk`. Each key is known and occurs once; a value is as the user wrote it, or missing.
struct Pairs(Vec<(&'static str, Option<String>)>);

impl Pairs {
    fn new(text: &str) -> Result<Pairs, DiskArgError> {
        let mut pairs: Vec<(&'static str, Option<String>)> = Vec::new();
        for item in split(text) {
            let (word, value) = match item.split_once('=') {
                Some((word, value)) => (word, Some(value.to_string())),
                None => (item.as_str(), None),
            };
            let Some(&key) = KEYS.iter().find(|&&key| key == word) else {
                // A file name instead of a key.
                let looks_like_a_path = value.is_none() && word.contains(['/', '.']);
                let in_qemu = QEMU_KEYS.iter().find(|(theirs, _)| *theirs == word).map(|&(_, ours)| ours);
                let nearest = match looks_like_a_path {
                    true => Some(format!("path={word}")),
                    false => in_qemu.or_else(|| nearest(word, KEYS)).map(str::to_string),
                };
                return Err(DiskArgError::UnknownKey { key: word.into(), nearest });
            };
            if pairs.iter().any(|&(seen, _)| seen == key) {
                return Err(DiskArgError::Duplicate { key });
            }
            pairs.push((key, value));
        }
        Ok(Pairs(pairs))
    }

    /// `None`: not given.
    fn get(&self, key: &str) -> Option<(&'static str, Option<&str>)> {
        self.0.iter().find(|&&(k, _)| k == key).map(|(k, value)| (*k, value.as_deref()))
    }

    fn parsed<T>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, DiskArgError> {
        let Some((key, value)) = self.get(key) else { return Ok(None) };
        let allowed = allowed.to_string();
        let Some(value) = value else { return Err(DiskArgError::NoValue { key, allowed }) };
        match parse(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(DiskArgError::BadValue { key, value: value.into(), allowed, nearest: None }),
        }
    }

    fn named<T: Copy>(&self, key: &str, names: &[(&'static str, T)]) -> Result<Option<T>, DiskArgError> {
        let allowed =
            format!("one of {}", names.iter().map(|&(name, _)| name).collect::<Vec<_>>().join(", "));
        let find = |value: &str| names.iter().find(|&&(name, _)| name == value).map(|&(_, named)| named);
        self.parsed(key, &allowed, find).map_err(|mut error| {
            if let DiskArgError::BadValue { value, nearest: found, .. } = &mut error {
                *found = nearest(value, names.iter().map(|&(name, _)| name)).map(str::to_string);
            }
            error
        })
    }

    fn flag(&self, key: &str, unset: bool) -> Result<bool, DiskArgError> {
        match self.get(key) {
            None => Ok(unset),
            Some((_, None)) => Ok(true),
            Some(_) => Ok(self.named(key, &[("on", true), ("off", false)])?.unwrap_or(unset)),
        }
    }

    fn file(&self, key: &'static str, what: &str) -> Result<Option<PathBuf>, DiskArgError> {
        self.parsed(key, what, |v| (!v.is_empty()).then(|| PathBuf::from(v)))
    }
}

/// The parts between single commas; a double comma stands for a comma.
fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' if chars.next_if_eq(&',').is_none() => parts.push(mem::take(&mut part)),
            _ => part.push(c),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
#[path = "disk_arg_tests.rs"]
mod tests;
