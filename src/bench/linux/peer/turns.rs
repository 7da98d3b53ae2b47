//! Whose turn it is: before a step of our guest, the steps of the reference VMMs that come before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::{io, mem};

use super::command::VmFacts;
use super::guest::Guest;
use super::host_fio::HostFio;
use super::script;
use super::spec::PeerKind;
use crate::bench::linux::fio_job::FioJob;
use crate::bench::linux::sample::Sample;
use crate::bench::linux::variant::Variant;
use crate::bench::memfile::MemFile;
use crate::bench::peer_process::version;
use crate::bench::{Schedule, Step};
use crate::host::Locked;
use crate::host::log;

/// What the reference VMMs are given.
pub struct Files {
    /// The guest's initial ramdisk, without a job.
    pub initrd: Vec<u8>,
    /// Where the disks' files are made; `None`: in memory.
    pub directory: Option<PathBuf>,
    /// Bytes of each disk.
    pub disk_size: u64,
    /// Bytes of a request.
    pub block_size: u64,
    /// Seconds of each step.
    pub runtime_s: f64,
    /// Seconds for which a disk is used before the first step.
    pub warm_up_s: f64,
}

enum Runner {
    Guest(Guest),
    Host(HostFio),
}

/// One of [`Variant::Peer`], or why it cannot run here.
struct Participant {
    path: usize,
    name: String,
    runner: Result<Runner, String>,
}

/// The reference VMMs, and what they have done.
pub struct Turns {
    schedule: Schedule<FioJob, Variant>,
    steps: Vec<Step>,
    runtime_s: f64,
    /// Their programs' versions.
    pub versions: Vec<String>,
    state: Mutex<State>,
}

struct State {
    /// Steps that are over, ours or theirs.
    over: usize,
    participants: Vec<Participant>,
    done: Done,
}

/// What they have measured.
#[derive(Debug, Default)]
pub struct Done {
    /// By the steps' numbers; those that were lost are missing.
    pub samples: BTreeMap<usize, Sample>,
    /// Paths that cannot be measured here, and why.
    pub absent: BTreeMap<usize, String>,
}

impl Turns {
    /// Starts them all, one after the other; each is stopped as soon as it is ready.
    ///
    /// # Errors
    /// A file cannot be made. A VMM that does not run here is not an error; its rows say why.
    pub fn start(schedule: &Schedule<FioJob, Variant>, vm: &VmFacts, files: &Files) -> io::Result<Turns> {
        let steps = schedule.steps();
        let (mut participants, mut versions) = (Vec::new(), Vec::new());
        for (path, variant) in schedule.paths.iter().enumerate() {
            let Variant::Peer(peer) = variant else { continue };
            let disk = MemFile::full(files.directory.as_deref(), files.disk_size)?;
            let runner = version(&peer.program).and_then(|version| {
                versions.push(version);
                if peer.kind == PeerKind::Host {
                    let (program, block_size) = (peer.program.clone(), files.block_size);
                    return Ok(Runner::Host(HostFio { program, disk, block_size, direct: vm.direct }));
                }
                let of_path = steps.iter().filter(|step| step.path == path);
                let initrd = initrd(schedule, of_path, files).map_err(|error| error.to_string())?;
                Guest::start(peer, vm, initrd, disk).map(Runner::Guest)
            });
            if let Err(why) = &runner {
                log::warn("bench", format_args!("{} cannot be measured here: {why}", peer.name));
            }
            participants.push(Participant { path, name: peer.name.clone(), runner });
        }
        let state = Mutex::new(State { over: 0, participants, done: Done::default() });
        Ok(Turns { schedule: schedule.clone(), steps, runtime_s: files.runtime_s, versions, state })
    }

    /// The number of our guest's `n`th step, from 0; beyond its last, a number that no step has.
    pub fn ours(&self, n: usize) -> usize {
        let is_ours = |step: &Step| !matches!(self.schedule.paths[step.path], Variant::Peer(_));
        let ours = self.steps.iter().enumerate().filter(|(_, step)| is_ours(step));
        ours.map(|(number, _)| number).nth(n).unwrap_or(self.steps.len())
    }

    /// Runs those of their steps that come before step `step` and have not run. Calls `begin` and `end` around each, with
    /// its number; `end` also with its requests.
    pub fn before(&self, step: usize, begin: impl Fn(usize), end: impl Fn(usize, u64)) {
        let mut state = self.state.locked();
        let state = &mut *state;
        let step = step.min(self.steps.len());
        for number in state.over..step {
            let Step { job, path, round } = self.steps[number];
            let Some(who) = state.participants.iter_mut().find(|who| who.path == path) else { continue };
            // A step that is lost is over, too: a round has ended when each of its steps has.
            let Ok(runner) = &mut who.runner else {
                end(number, 0);
                continue;
            };
            begin(number);
            let job = &self.schedule.jobs[job];
            let measured = match runner {
                Runner::Guest(guest) => guest.step(job, self.runtime_s),
                Runner::Host(host) => host.step(job, self.runtime_s),
            };
            end(number, measured.as_ref().map_or(0, |sample| sample.fio.requests));
            match measured {
                Ok(sample) => _ = state.done.samples.insert(number, sample),
                Err(why) => {
                    let (name, round) = (&who.name, round + 1);
                    log::warn("bench", format_args!("{job} on {name}, round {round} is lost: {why}"));
                    // A step that did not end leaves a guest that does not know which step is next.
                    if let Runner::Guest(guest) = runner
                        && guest.is_lost()
                    {
                        who.runner = Err(why);
                    }
                }
            }
        }
        state.over = state.over.max(step);
    }

    /// Runs their steps after our guest's last, if it has reached that.
    pub fn rest(&self, begin: impl Fn(usize), end: impl Fn(usize, u64)) {
        let over = self.state.locked().over;
        let ours = |step: &Step| !matches!(self.schedule.paths[step.path], Variant::Peer(_));
        // The steps of reference VMMs that come after our last step are left to this function.
        if !self.steps.iter().skip(over + 1).any(ours) {
            self.before(self.steps.len(), begin, end);
        }
    }

    /// What they have measured. Ends them.
    pub fn finish(&self) -> Done {
        let mut state = self.state.locked();
        let (participants, mut done) = (mem::take(&mut state.participants), mem::take(&mut state.done));
        for Participant { path, runner, .. } in participants {
            // One that was lost later has rows, with rounds missing.
            let measured = done.samples.keys().any(|&number| self.steps[number].path == path);
            if let (Err(why), false) = (runner, measured) {
                done.absent.insert(path, why);
            }
        }
        done
    }
}

fn initrd<'a>(
    schedule: &Schedule<FioJob, Variant>,
    steps: impl Iterator<Item = &'a Step>,
    files: &Files,
) -> io::Result<MemFile> {
    let jobs = steps.map(|step| step.job);
    let job = script::archive(jobs, &schedule.jobs, files.block_size, files.runtime_s, files.warm_up_s);
    let mut initrd = files.initrd.clone();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(job);
    MemFile::of(&initrd)
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
