//! The guest of one reference VMM: stopped, except while one of its steps runs.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::command::{Paths, VmFacts, attempts};
use super::script::{BEGIN, END, READY, mark};
use super::{exits, spec::Peer};
use crate::bench::linux::archive::untar;
use crate::bench::linux::fio_job::{FioJob, UNTIMED_S};
use crate::bench::linux::sample::{Results, Sample, guest_sample};
use crate::bench::memfile::MemFile;
use crate::bench::peer_process::PeerProcess;
use crate::host::Locked;
use crate::host::thread;

/// How long it may take to start, and to get from one mark to the next, beyond the step's own time.
const LIMIT: Duration = Duration::from_secs(60);
/// How often its process is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Size of its disk for results: those of one step.
const OUT_BYTES: u64 = 4 << 20;
/// Lines of its console that are kept for a message.
const KEPT: usize = 5;

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A guest of a reference VMM.
pub struct Guest {
    process: PeerProcess,
    marks: Receiver<String>,
    console: Lines,
    out: MemFile,
    /// Whether it waits for its next step.
    ready: bool,
    lost: bool,
    /// What it has open.
    _files: (MemFile, MemFile),
}

impl Guest {
    /// Starts `peer` with the job in `initrd`, and stops it when its guest is ready.
    ///
    /// # Errors
    /// Why it cannot run here, as a clause.
    pub fn start(peer: &Peer, vm: &VmFacts, initrd: MemFile, disk: MemFile) -> Result<Guest, String> {
        let host = |error: io::Error| format!("no file for its guest: {error}");
        let out = MemFile::sparse(OUT_BYTES).map_err(host)?;
        let mut paths = Paths {
            initrd: initrd.path_for_child(),
            disk: disk.path_for_child(),
            out: out.path_for_child(),
            console: "".into(),
        };
        let mut failure = String::new();
        for n in 0..attempts(peer, vm, &paths).len() {
            let (marks, console, writer) = listen().map_err(host)?;
            paths.console = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd()).into();
            let process = PeerProcess::start(attempts(peer, vm, &paths).swap_remove(n))?;
            let mut started = Started { process, marks, console };
            match started.wait(READY, LIMIT) {
                Ok(_) => {
                    started.process.set_running(false);
                    let Started { process, marks, console } = started;
                    let _files = (initrd, disk);
                    return Ok(Guest { process, marks, console, out, ready: true, lost: false, _files });
                }
                Err(Lost::Ended(why)) => failure = why,
                Err(Lost::Silent(why)) => return Err(why),
            }
        }
        Err(failure)
    }

    /// Runs its next step, which is `job`; `runtime_s`: how long jobs run that do not say it themselves.
    ///
    /// # Errors
    /// The step is lost; a clause says why. There may be more steps, unless it [is lost](Guest::is_lost) itself.
    pub fn step(&mut self, job: &FioJob, runtime_s: f64) -> Result<Sample, String> {
        let early = !self.marks.is_empty();
        self.process.set_running(true);
        let seconds = job.seconds(runtime_s).unwrap_or(UNTIMED_S);
        let measured = self.measure(job.reads_back(), LIMIT + Duration::from_secs_f64(seconds));
        self.process.set_running(false);
        // It marks READY after every step, a failed one included, unless it hangs or has ended.
        self.lost = self.lost || measured.is_err() && !self.ready;
        let sample = measured?;
        if early {
            return Err("it started before its turn, because this host was busy for a second".into());
        }
        Ok(sample)
    }

    fn measure(&mut self, reads_back: bool, limit: Duration) -> Result<Sample, String> {
        let id = self.process.id();
        self.ready = false;
        self.wait(BEGIN, LIMIT)?;
        let before = exits::of_process(id);
        let end = self.wait(END, limit)?;
        let exits = exits::of_process(id).zip(before).map(|(after, before)| after.saturating_sub(before));
        // Its files are on the disk when it is ready again.
        self.wait(READY, LIMIT)?;
        self.ready = true;
        if end != format!("{END} 0") {
            return Err(format!("fio in its guest ended with status {}", end.trim_start_matches(END).trim()));
        }
        let out = self.out.read().map_err(|error| format!("its results cannot be read: {error}"))?;
        let files = untar(&out).ok_or("its guest left no results")?;
        guest_sample(&Results::new(files), reads_back, exits)
    }

    fn wait(&mut self, wanted: &str, limit: Duration) -> Result<String, String> {
        let Guest { process, marks, console, .. } = self;
        wait(process, marks, console, wanted, limit).map_err(|lost| match lost {
            Lost::Ended(why) | Lost::Silent(why) => why,
        })
    }

    /// Whether it has no more steps: its process has ended, or its guest hangs.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

struct Started {
    process: PeerProcess,
    marks: Receiver<String>,
    console: Lines,
}

impl Started {
    fn wait(&mut self, wanted: &str, limit: Duration) -> Result<String, Lost> {
        wait(&mut self.process, &self.marks, &self.console, wanted, limit)
    }
}

/// Why a mark does not come.
enum Lost {
    /// The process has ended.
    Ended(String),
    /// Nothing came in time.
    Silent(String),
}

fn wait(
    process: &mut PeerProcess,
    marks: &Receiver<String>,
    console: &Lines,
    wanted: &str,
    limit: Duration,
) -> Result<String, Lost> {
    let begun = Instant::now();
    let said = || {
        let lines = console.locked();
        let text = lines.iter().map(String::as_str).collect::<Vec<_>>().join(" / ");
        if text.is_empty() { String::new() } else { format!("; its console ends with: {text}") }
    };
    loop {
        match marks.recv_timeout(LOOK) {
            Ok(mark) if mark.split(' ').next() == Some(wanted) => return Ok(mark),
            // A mark of a step that was given up.
            Ok(_) => continue,
            Err(RecvTimeoutError::Timeout) => {}
            // The console's reader has ended, which it does not before the process has.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
        }
        if let Some(why) = process.ended() {
            return Err(Lost::Ended(why + &said()));
        }
        if begun.elapsed() > limit {
            let limit = limit.as_secs();
            return Err(Lost::Silent(format!("its guest was silent for {limit} s{}", said())));
        }
    }
}

/// A console: what the guest marks on it, its last lines, and where it is written to.
fn listen() -> io::Result<(Receiver<String>, Lines, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    let (sender, marks) = crossbeam_channel::unbounded();
    let lines = Lines::default();
    let kept = lines.clone();
    let listener = move || {
        read(reader, &sender, &kept);
        Ok(())
    };
    // Nobody has to hear of this thread's death: without it marks are missing, which `wait` reports.
    thread::spawn("peer-console", Arc::new(|_| ()), listener)?;
    Ok((marks, lines, writer))
}

fn read(reader: PipeReader, marks: &Sender<String>, kept: &Lines) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        match mark(&text) {
            Some(mark) => _ = marks.send(mark.to_string()),
            None if !text.trim().is_empty() => {
                let mut kept = kept.locked();
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(text.trim().to_string());
            }
            None => {}
        }
        line.clear();
    }
}
