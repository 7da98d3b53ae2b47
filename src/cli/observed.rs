//! Observation of a `run`: the control socket, a trace, counts of kernel functions.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use strum::VariantNames;

use super::Failure;
use super::out_file::OutFile;
use super::out_place::FilesInUse;
use crate::host::events::{self, Format};
use crate::host::log;
use crate::host::sandbox::Right;
use crate::host::thread::OnDeath;
use crate::observe::control::ControlServer;
use crate::observe::kernel::{EVIDENCE, KernelEvidence};
use crate::observe::trace::{DEFAULT_CAPACITY, Summary, Tracer, Tracing, timeline};
use crate::observe::{MemoryParts, VmParts};
use crate::vm::Vm;

/// Flags of `run` for observation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Observation")]
pub(super) struct ObserveArgs {
    /// Let `doorbell inspect`, `ctl` and `trace` reach this VM through the Unix socket PATH
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Write a timeline of the run's first requests to FILE (Chrome trace event format), and print a table of stages
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Count the kernel functions that run, on the whole host, and print the counts when the run ends (root)
    #[arg(long)]
    evidence: bool,
    /// Log what sets the notifications up, with time and thread: features, BARs, ioeventfds, MSI-X entries, routes, irqfds, queues
    /// that start and stop, resets. No request is in it; 64 MiB at most
    #[arg(long, value_name = "FILE|stderr")]
    log: Option<PathBuf>,
    /// The same as --log stderr
    #[arg(short, long, conflicts_with = "log")]
    verbose: bool,
    /// Form of the log: text, or json (one object per line)
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = parse_format)]
    log_format: Format,
}

fn parse_format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|_| format!("it takes {}", Format::VARIANTS.join(" or ")))
}

/// The observers of a running guest. They hold the disks, so they must end before the machine is dropped.
pub(super) struct Observed {
    control: Option<ControlServer>,
    trace: Option<(OutFile, Tracing)>,
    evidence: Option<KernelEvidence>,
}

impl ObserveArgs {
    /// Starts the log. Threads that are started from now on are in it.
    pub(super) fn start_log(&self, files: &mut FilesInUse) -> Result<(), Failure> {
        match &self.log {
            Some(path) if path != Path::new("stderr") => {
                files.output("--log", path)?;
                let fail = |e| format!("--log {} cannot be written: {e}", path.display());
                let file = File::create(path).map_err(|e| Failure { code: 4, message: fail(e) })?;
                events::start(file, self.log_format);
            }
            None if !self.verbose => {}
            _ => events::start(events::StandardError, self.log_format),
        }
        Ok(())
    }

    /// Opens the file for the timeline.
    pub(super) fn open_trace(&self, files: &mut FilesInUse) -> Result<Option<OutFile>, Failure> {
        let open = |path| files.output("--trace", path).and_then(|()| OutFile::open("--trace", path));
        self.trace.as_deref().map(open).transpose()
    }

    /// What it needs by name when the run ends. The counts of kernel functions are read then; tracing is taken away by a
    /// process of its own.
    pub(super) fn late_files(&self) -> Vec<(PathBuf, Right)> {
        let directory = |path: &PathBuf| match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let socket = self.control.iter().map(|path| (directory(path), Right::Remove));
        let tracing = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        let counts = tracing.iter().filter(|_| self.evidence).map(|&root| (root.into(), Right::Read));
        socket.chain(counts).collect()
    }

    /// Starts the requested observers; the timeline goes to `out`, the death of a thread of theirs to `on_death`.
    pub(super) fn start(
        self,
        assembly: &mut Vm,
        out: Option<OutFile>,
        on_death: OnDeath,
    ) -> Result<Observed, Failure> {
        let tracer = Tracer::new(assembly.disks());
        let control =
            self.control.map(|path| ControlServer::start(&path, parts(assembly), tracer.clone(), on_death));
        let control = control.transpose()?;
        let evidence = self.evidence.then(|| KernelEvidence::start(EVIDENCE)).transpose()?;
        let trace = match out {
            Some(out) => {
                Some((out, tracer.start(DEFAULT_CAPACITY).map_err(|e| Failure::host(e.to_string()))?))
            }
            None => None,
        };
        Ok(Observed { control, trace, evidence })
    }
}

fn parts(assembly: &mut Vm) -> VmParts {
    let mut loops = assembly.io_loops();
    loops.extend(assembly.main_loop().map(|main| main.handle()));
    let disks = assembly.disks().to_vec();
    let routes = Some(assembly.machine().routes());
    let (images, vfio) = (assembly.images().to_vec(), assembly.vfio().to_vec());
    let memory =
        Some(MemoryParts { ram: assembly.machine().memory(), stats: assembly.machine().statistics() });
    VmParts { disks, images, routes, loops, memory, vfio }
}

impl Observed {
    /// Puts the VM that `make` returns in the place of the one that is observed. `make` drops that one first, so nothing of it
    /// is held here meanwhile. The timeline of `--trace` ends with it.
    pub(super) fn replace(&self, make: impl FnOnce() -> Result<Vm, Failure>) -> Result<Vm, Failure> {
        let Some(control) = &self.control else { return make() };
        control.replace(|| {
            let mut assembly = make()?;
            let (parts, tracer) = (parts(&mut assembly), Tracer::new(assembly.disks()));
            Ok((assembly, parts, tracer))
        })
    }

    /// Ends the observers, writes the timeline, and prints to standard error: standard output belongs to the guest.
    pub(super) fn finish(self) -> Result<(), Failure> {
        drop(self.control);
        let counts = self.evidence.map(KernelEvidence::stop).transpose()?;
        if let Some((out, tracing)) = self.trace {
            let recording = tracing.stop();
            let table = Summary::of(&recording).table();
            log::say(format_args!("{table}timeline: {}", out.path().display()));
            out.write_json(&timeline(&recording))?;
        }
        if let Some(counts) = counts {
            log::say(format_args!("{counts}"));
        }
        Ok(())
    }
}
