//! `doorbell trace`: in which stages the requests of a live VM spend their time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::out_file::OutFile;
use super::signals::Signals;
use super::{Failure, print};
use crate::host::log;
use crate::observe::control::{Client, Request};
use crate::observe::kernel::{Counts, EVIDENCE, KernelEvidence};
use crate::observe::trace::{DEFAULT_CAPACITY, MAX_CAPACITY, Recording, Summary, page, timeline};

/// Trace the requests of a live VM: a table of stages, and a timeline for the Perfetto viewer.
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C ends the trace early and keeps what there is. Open the timeline at https://ui.perfetto.dev or chrome://tracing;
it is read locally. Times are CLOCK_MONOTONIC.")]
pub struct TraceArgs {
    /// The VM's control socket (run --control)
    socket: PathBuf,
    /// Seconds to trace
    #[arg(long = "for", value_name = "SEC", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Write the timeline (Chrome trace event format) to FILE; - is standard output (the table then goes to standard error)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write an HTML page to FILE that follows one request hop by hop: what happens, and where; - is standard output
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Requests kept per queue; further ones are counted and dropped
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CAPACITY, value_parser = capacity)]
    buffer: usize,
    /// Count the kernel functions that run meanwhile, on the whole host, and sample their callers (root); a line on
    /// standard error says when the probes are armed
    #[arg(long, visible_alias = "evidence")]
    kernel: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "use seconds, 0 to 3600".into())
}

fn capacity(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX_CAPACITY).contains(n));
    number.ok_or_else(|| format!("use 1 to {MAX_CAPACITY}"))
}

/// Traces and prints.
pub(super) fn run(args: TraceArgs) -> Result<u8, Failure> {
    let signals = Signals::take()?;
    let out = args.out.as_deref().map(|path| OutFile::open("--out", path)).transpose()?;
    let html = args.html.as_deref().map(|path| OutFile::open("--html", path)).transpose()?;
    if out.iter().chain(&html).filter(|file| file.is_stdout()).count() > 1 {
        return Err(Failure::usage("--out and --html cannot both be standard output"));
    }
    let mut client = Client::connect(&args.socket)?;
    let ended = EventFd::new(EFD_NONBLOCK).map_err(|e| Failure::host(format!("eventfd failed: {e}")))?;
    let end = ended.try_clone().map_err(|e| Failure::host(format!("eventfd failed: {e}")))?;
    let evidence = args.kernel.then(|| KernelEvidence::start(EVIDENCE)).transpose()?;
    client.ask::<bool>(Request::TraceStart { capacity: args.buffer })?;
    // From now on a signal ends the trace, and the process only when what there is has been written. Before, and with the second
    // signal, it ends the process at once, and probes in the kernel are taken away by their own process.
    signals.on_end(move |_| end.write(1).is_ok());
    if let Some(evidence) = &evidence {
        // Arming takes a while. What should be counted must begin after this line.
        let seconds = args.duration.as_secs_f64();
        log::say(format_args!("armed: {evidence}; tracing for {seconds} s"));
    }
    wait(&ended, client.as_fd(), args.duration);
    let recording: Recording = client.ask(Request::TraceStop)?;
    let counts = evidence.map(KernelEvidence::stop).transpose()?;
    let table = report(&recording, counts.as_ref(), args.json);
    if out.iter().chain(&html).any(OutFile::is_stdout) {
        log::say(format_args!("{table}"));
    } else {
        print(&table)?;
    }
    if let Some(out) = out {
        let path = out.path().to_path_buf();
        out.write_json(&timeline(&recording))?;
        log::say(format_args!("timeline: {}", path.display()));
    }
    if let Some(html) = html {
        let none =
            || Failure { code: 1, message: "--html: no request was traced, so there is no page".into() };
        let name = html.path().to_path_buf();
        html.write_text(&page(&recording).ok_or_else(none)?)?;
        log::say(format_args!("page: {}", name.display()));
    }
    Ok(0)
}

/// Waits until the time is over, a signal asks to end, or the VM ends (it sends nothing unasked, so its socket hangs up).
fn wait(ended: &EventFd, vm: BorrowedFd<'_>, duration: Duration) {
    let deadline = Instant::now() + duration;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, because poll(2) with a timeout of 0 does not wait.
        let timeout = left.as_micros().div_ceil(1000) as i32;
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled = [watch(ended.as_raw_fd()), watch(vm.as_raw_fd())];
        // SAFETY: two valid pollfds.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout) };
        if ready > 0 || left.is_zero() {
            return;
        }
    }
}

/// The result of a trace, as text or JSON.
fn report(recording: &Recording, counts: Option<&Counts>, json: bool) -> String {
    let summary = Summary::of(recording);
    if json {
        let schema = "doorbell-trace-summary/1";
        return format!("{}\n", serde_json::json!({"schema": schema, "summary": summary, "kernel": counts}));
    }
    let counts = counts.map_or(String::new(), |counts| format!("\n{counts}"));
    format!("{}\n{counts}", summary.table().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_buffers_out_of_range_are_refused() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(["-1", "x", "nan", "1e9"].into_iter().all(|text| seconds(text).is_err()));
        assert_eq!(capacity("1"), Ok(1));
        assert!(["0", "1048577", "-3"].into_iter().all(|text| capacity(text).is_err()));
    }
}
