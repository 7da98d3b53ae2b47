//! How a queue holds its interrupts: the setting, its text form, and the switch of a running disk.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether and how long the interrupts of a queue are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moderation {
    /// Every completion for which the driver wants an interrupt causes one at once.
    Off,
    /// Holds while it pays. How many completions and how long is learnt from the results of past holds.
    #[default]
    Auto,
    /// Holds an interrupt for up to this many completions, and at most this long.
    Fixed {
        /// Completions, 1 to 1024.
        completions: u32,
        /// Microseconds, 1 to 100,000.
        max_us: u32,
    },
}

/// The longest time that [`Moderation::Auto`] holds an interrupt, in microseconds.
pub const AUTO_MAX_US: u32 = 2000;

impl Moderation {
    /// The largest values of [`Moderation::Fixed`]: completions, microseconds.
    pub const MOST: (u32, u32) = (1024, 100_000);

    /// Returns the setting as one word for an atomic: 0 is off, [`u64::MAX`] auto, others completions and microseconds.
    pub(super) fn to_word(self) -> u64 {
        match self {
            Moderation::Off => 0,
            Moderation::Auto => u64::MAX,
            Moderation::Fixed { completions, max_us } => u64::from(completions) << 32 | u64::from(max_us),
        }
    }

    pub(super) fn from_word(word: u64) -> Moderation {
        match word {
            0 => Moderation::Off,
            u64::MAX => Moderation::Auto,
            _ => Moderation::Fixed { completions: (word >> 32) as u32, max_us: word as u32 },
        }
    }
}

impl fmt::Display for Moderation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moderation::Off => f.write_str("off"),
            Moderation::Auto => f.write_str("auto"),
            Moderation::Fixed { completions, max_us } => write!(f, "{completions}:{max_us}"),
        }
    }
}

impl FromStr for Moderation {
    type Err = ();

    /// Parses `auto`, `off`, or `N:US` (also `N,US`).
    fn from_str(text: &str) -> Result<Moderation, ()> {
        match text {
            "off" => return Ok(Moderation::Off),
            "auto" => return Ok(Moderation::Auto),
            _ => {}
        }
        let number = |text: &str, most: u32| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n| digits && (1..=most).contains(n)).ok_or(())
        };
        let (completions, max_us) = text.split_once([':', ',']).ok_or(())?;
        let (completions, max_us) =
            (number(completions, Moderation::MOST.0)?, number(max_us, Moderation::MOST.1)?);
        Ok(Moderation::Fixed { completions, max_us })
    }
}

/// The moderation of a disk's queues. Any holder may change it while they run.
#[derive(Debug)]
pub struct ModerationSwitch(AtomicU64);

impl ModerationSwitch {
    /// Returns a switch with the setting `setting`.
    pub fn new(setting: Moderation) -> Arc<ModerationSwitch> {
        Arc::new(ModerationSwitch(AtomicU64::new(setting.to_word())))
    }

    /// Changes the setting. Each queue adopts it with its next batch. An interrupt that it holds is not lost.
    pub fn set(&self, setting: Moderation) {
        self.0.store(setting.to_word(), Ordering::Relaxed);
    }

    /// Returns the setting.
    pub fn get(&self) -> Moderation {
        Moderation::from_word(self.0.load(Ordering::Relaxed))
    }
}
