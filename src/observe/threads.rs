use std::fs;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::dataplane::LoopHandle;

/// A thread of the VMM, as the kernel and its loop know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadView {
    /// Thread ID.
    pub tid: u32,
    /// Name: "iothread0", "vcpu0", "main".
    pub name: String,
    /// "running", "sleeping", "uninterruptible", or the kernel's letter.
    pub state: String,
    /// The CPU on which it ran last.
    pub cpu: Option<u32>,
    /// CPU time in user space, in milliseconds.
    pub user_ms: u64,
    /// CPU time in the kernel, in milliseconds.
    pub system_ms: u64,
    /// The queues that it runs: "disk0 queue 0".
    pub owns: Vec<String>,
    /// Its loop's waits, one system call each; `None`: it runs no loop.
    pub waits: Option<u64>,
    /// Waits that a busy-poll of its loop made unnecessary.
    pub poll_hits: Option<u64>,
}

/// The threads of this process. `owners` are pairs of thread name and queue; `loops` count their waits.
pub(super) fn of_this_process(owners: &[(String, String)], loops: &[LoopHandle]) -> Vec<ThreadView> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut threads: Vec<_> = tasks
        .filter_map(|task| {
            let tid = task.file_name().to_str()?.parse().ok()?;
            // The first thread is the main loop; its name is that of the process.
            let mut thread = parse(tid, &fs::read_to_string(task.path().join("stat")).ok()?)?;
            if tid == std::process::id() {
                thread.name = "main".into();
            }
            Some(thread)
        })
        .collect();
    threads.sort_by_key(|thread| thread.tid);
    for thread in &mut threads {
        thread.owns =
            owners.iter().filter(|(name, _)| *name == thread.name).map(|(_, q)| q.clone()).collect();
        if let Some(handle) = loops.iter().find(|handle| handle.name() == thread.name) {
            thread.waits = Some(handle.counters().waits.load(Ordering::Relaxed));
            thread.poll_hits = Some(handle.counters().poll_hits.load(Ordering::Relaxed));
        }
    }
    threads
}

/// ID and name of each thread of this process.
pub(super) fn names() -> Vec<(u32, String)> {
    of_this_process(&[], &[]).into_iter().map(|thread| (thread.tid, thread.name)).collect()
}

/// Reads `/proc/PID/task/TID/stat` (proc(5)).
fn parse(tid: u32, stat: &str) -> Option<ThreadView> {
    // The name may contain parentheses; nothing after the last one does.
    let (name, rest) = (stat.get(stat.find('(')? + 1..stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 1..)?);
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "sleeping",
        "D" => "uninterruptible",
        other => other,
    };
    // SAFETY: takes no pointer.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    let milliseconds = |n| number(n).map_or(0, |ticks| ticks * 1000 / per_second);
    Some(ThreadView {
        tid,
        name: name.into(),
        state: state.into(),
        // Fields 14, 15 and 39 of proc(5), which counts from 1; the PID is field 1.
        user_ms: milliseconds(11),
        system_ms: milliseconds(12),
        cpu: number(36).map(|cpu| cpu as u32),
        ..ThreadView::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let numbers = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let thread = parse(7, &format!("7 (io) thread (0) S {numbers}\n")).unwrap();
        assert_eq!((thread.name.as_str(), thread.state.as_str()), ("io) thread (0", "sleeping"));
        assert_eq!((thread.user_ms, thread.system_ms, thread.cpu), (140, 150, Some(39)));
        assert!(parse(7, "").is_none() && parse(7, ")(").is_none());
    }

    #[test]
    fn our_own_threads_are_found_with_what_they_own() {
        let owner = ("main".to_string(), "disk0 queue 0".to_string());
        let threads = of_this_process(&[owner], &[]);
        let main = threads.iter().find(|thread| thread.tid == std::process::id()).unwrap();
        assert_eq!((main.name.as_str(), main.owns.len(), main.waits), ("main", 1, None));
        assert!(threads.len() > 1, "the test runs on a thread of its own");
    }
}
