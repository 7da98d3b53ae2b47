//! The order of measurements.

use std::fmt;
use std::str::FromStr;

use crate::dataplane::CompletePath;
use crate::virtio::NotifyPath;

/// A notify path and a complete path; each pair has its own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPair {
    /// Guest to host.
    pub notify: NotifyPath,
    /// Host to guest.
    pub complete: CompletePath,
}

impl fmt::Display for PathPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.notify, self.complete)
    }
}

/// A path as the command line names it; a missing part has its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPairName {
    /// Guest to host.
    pub notify: Option<NotifyPath>,
    /// Host to guest.
    pub complete: Option<CompletePath>,
    /// Whether interrupts are held back where that pays; otherwise every completion interrupts, unless the driver wants none.
    pub moderated: bool,
}

/// The suffix of a path whose interrupts are moderated.
const MODERATED: &str = "moderated";

impl FromStr for PathPairName {
    type Err = String;

    /// `NOTIFY+COMPLETE`, or one of them: no name is in both lists. `+moderated` may follow.
    fn from_str(text: &str) -> Result<PathPairName, String> {
        let mut path = PathPairName { notify: None, complete: None, moderated: false };
        for name in text.split('+') {
            if name == MODERATED && !path.moderated {
                path.moderated = true;
                continue;
            }
            match (name.parse::<NotifyPath>(), name.parse::<CompletePath>()) {
                (Ok(notify), _) if path.notify.is_none() => path.notify = Some(notify),
                (_, Ok(complete)) if path.complete.is_none() => path.complete = Some(complete),
                _ => {
                    let notify = NotifyPath::NAMES.map(|(name, _)| name).join(", ");
                    let complete = CompletePath::NAMES.map(|(name, _)| name).join(", ");
                    return Err(format!(
                        "a path is NOTIFY+COMPLETE or one of them, with NOTIFY of {notify} and COMPLETE of {complete}; \
                         +{MODERATED} may follow"
                    ));
                }
            }
        }
        Ok(path)
    }
}

/// Jobs x paths x rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule<J, P = PathPair> {
    /// The jobs on each path.
    pub jobs: Vec<J>,
    /// The compared paths. Ratios are to the first.
    pub paths: Vec<P>,
    /// How often every job runs on every path.
    pub rounds: usize,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Round, from 0.
    pub round: usize,
    /// Index in [`Schedule::jobs`].
    pub job: usize,
    /// Index in [`Schedule::paths`].
    pub path: usize,
}

impl<J, P> Schedule<J, P> {
    /// Every measurement in its order: job by job, the paths directly after each other, in reverse order in every second
    /// round (ABBA). So a drift of the host hits all paths alike, and being first is not an advantage.
    pub fn steps(&self) -> Vec<Step> {
        let paths = self.paths.len();
        let order = |round: usize, n: usize| if round.is_multiple_of(2) { n } else { paths - 1 - n };
        (0..self.rounds)
            .flat_map(|round| (0..self.jobs.len()).map(move |job| (round, job)))
            .flat_map(|(round, job)| (0..paths).map(move |n| Step { round, job, path: order(round, n) }))
            .collect()
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
