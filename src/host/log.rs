//! Messages to the user, on standard error.
//!
//! Any thread may log, including I/O threads and vCPUs. So a message cannot panic, wait for a reader, or flood the
//! output. What standard error does not take is kept up to a limit and dropped beyond it. Each source has a budget of
//! lines. Dropped lines are counted, and the count is printed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::thread::is_confined;
use crate::host::Locked;

/// How many lines a source may print in a burst.
const BURST: u32 = 10;
/// After a burst, a source may print one line in this time.
const EACH: Duration = Duration::from_secs(1);
/// How many sources have a separate budget. The others share one.
const SOURCES: usize = 256;
/// How many bytes are kept while standard error takes none.
const KEPT: usize = 64 << 10;
/// How long the end of the program waits for standard error.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Prints `doorbell: SOURCE: MESSAGE`, unless `source` has used up its budget: 10 lines at once, then one a second.
pub fn warn(source: impl fmt::Display, message: fmt::Arguments<'_>) {
    if let Some(log) = standard_error() {
        log.warn(&source.to_string(), message, Instant::now());
    }
}

/// Prints `text` unchanged and without a budget. For output that the user asked for: results, progress, the sentence
/// that ends the program.
pub fn say(text: fmt::Arguments<'_>) {
    if let Some(log) = standard_error() {
        log.line(&text.to_string());
    }
}

/// Opens standard error now: a confined thread cannot.
pub fn open() {
    standard_error();
}

/// Prints how many lines were dropped, and waits up to a second for standard error to take the rest. For the end of
/// the program.
pub fn finish() {
    if let Some(log) = standard_error() {
        log.finish();
    }
}

/// Prints panics through this log. The default hook would block on a standard error that nobody reads.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        // Its symbols are read from the program's file, which a confined thread cannot open.
        let trace = (!is_confined()).then(Backtrace::capture);
        let trace = trace.filter(|trace| trace.status() == BacktraceStatus::Captured);
        let trace = trace.map_or(String::new(), |trace| format!("\n{trace}"));
        say(format_args!("thread '{}' {info}{trace}", thread.name().unwrap_or("?")));
    }));
}

/// Returns the log of this process, or `None` if standard error is closed.
fn standard_error() -> Option<&'static Log> {
    static LOG: OnceLock<Option<Log>> = OnceLock::new();
    LOG.get_or_init(|| Log::new(std::io::stderr().as_fd())).as_ref()
}

struct Log {
    stream: Stream,
    budgets: Mutex<Budgets>,
}

#[derive(Default)]
struct Budgets {
    sources: HashMap<String, Budget>,
    /// How many lines standard error did not take.
    lost: u64,
}

struct Budget {
    lines: u32,
    since: Instant,
    dropped: u64,
}

impl Log {
    fn new(fd: BorrowedFd<'_>) -> Option<Log> {
        Some(Log { stream: Stream::new(fd).ok()?, budgets: Mutex::default() })
    }

    fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.budgets.locked()
    }

    fn warn(&self, source: &str, message: fmt::Arguments<'_>, now: Instant) {
        let dropped = self.budgets().take(source, now);
        let Some(dropped) = dropped else { return };
        if dropped > 0 {
            self.line(&dropped_line(source, dropped));
        }
        self.line(&format!("doorbell: {source}: {message}"));
    }

    fn line(&self, text: &str) {
        // First write what is kept, to make room if the reader takes it.
        self.stream.flush();
        let lost = {
            let mut budgets = self.budgets();
            if self.stream.len() > KEPT {
                budgets.lost += 1;
                return;
            }
            std::mem::take(&mut budgets.lost)
        };
        if lost > 0 {
            self.stream
                .push(format!("doorbell: {lost} messages were lost, because nobody read them\n").as_bytes());
        }
        self.stream.push(format!("{}\n", text.trim_end_matches('\n')).as_bytes());
        self.stream.flush();
    }

    fn finish(&self) {
        let sources = std::mem::take(&mut self.budgets().sources);
        let mut quiet: Vec<_> = sources.iter().filter(|(_, budget)| budget.dropped > 0).collect();
        quiet.sort_by_key(|(source, _)| source.as_str());
        for (source, budget) in quiet {
            self.line(&dropped_line(source, budget.dropped));
        }
        let deadline = Instant::now() + LAST_WAIT;
        while !self.stream.flush() && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
            let fd = self.stream.as_fd().as_raw_fd();
            let mut room = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&mut room, 1, left) };
        }
    }
}

fn dropped_line(source: &str, dropped: u64) -> String {
    format!("doorbell: {source}: {dropped} messages dropped")
}

impl Budgets {
    /// Takes a line from the budget of `source`. Returns whether there was one, and how many lines were dropped before.
    fn take(&mut self, source: &str, now: Instant) -> Option<u64> {
        let known = self.sources.contains_key(source) || self.sources.len() < SOURCES;
        let source = if known { source } else { "others" };
        let new = Budget { lines: BURST, since: now, dropped: 0 };
        let budget = self.sources.entry(source.to_string()).or_insert(new);
        let earned = now.saturating_duration_since(budget.since).as_secs() / EACH.as_secs();
        if earned > 0 {
            budget.lines = BURST.min(budget.lines.saturating_add(earned.min(BURST.into()) as u32));
            budget.since = now;
        }
        match budget.lines.checked_sub(1) {
            Some(left) => {
                budget.lines = left;
                Some(std::mem::take(&mut budget.dropped))
            }
            None => {
                budget.dropped += 1;
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
