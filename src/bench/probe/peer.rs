use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::{FileOffset, GuestAddress};

use super::super::PROBE_ELF;
use super::super::memfile::MemFile;
use super::super::peer_process::PeerProcess;
use super::super::probe_abi::{
    Control, GuestJob, MAGIC, Outcome, RAM_SIZE, VERSION, idle, kind, mode, state, vector,
};
use super::config::DISK_BYTES;
use super::error::SessionError;
use super::mailbox::{Mailbox, completed};
use super::qemu::{self, Files, IO_URING, PEER_VARIANTS, PeerVariant};
use super::row_stats::Block;
use crate::machine::Ram;

/// The reference VMM: the same guest in QEMU, driven through shared memory. The QEMU process is stopped except while
/// one of its blocks runs.
pub(super) struct Peer {
    process: PeerProcess,
    mailbox: Mailbox,
    /// The first line of `--version`.
    pub version: String,
    /// Its devices, in the guest's order.
    pub variants: Vec<&'static PeerVariant>,
    /// Devices that it does not support on this host, and why.
    pub absent: Vec<(&'static PeerVariant, String)>,
}

/// Time limit for the guest to come up, all attempts together.
const START: Duration = Duration::from_secs(10);
const BLOCK_SECONDS: u64 = 60;

impl Peer {
    /// Starts QEMU with a device for each variant; the file backends read `disk`, if there is one. `pin`: the host CPUs
    /// for its vCPU and for its other threads.
    ///
    /// # Errors
    /// Why it cannot run on this host, as a clause.
    pub fn start(disk: Result<&Path, &String>, pin: Option<(usize, usize)>) -> Result<Peer, String> {
        let version = qemu::version()?;
        let deadline = Instant::now() + START;
        let kernel = MemFile::of(PROBE_ELF).map_err(|e| e.to_string())?;
        let needs_file = |variant: &&PeerVariant| variant.backend != "null";
        let no_file =
            |why: &String| PEER_VARIANTS.iter().filter(needs_file).map(|s| (s, why.clone())).collect();
        let without_file: Vec<_> = disk.err().map_or_else(Vec::new, no_file);
        let mut failure = String::new();
        // A QEMU without qboot uses SeaBIOS, which takes seconds.
        for firmware in ["qboot.rom", ""] {
            let mut absent = without_file.clone();
            for io_uring in [true, false] {
                let here = |variant: &&PeerVariant| !absent.iter().any(|(absent, _)| absent == variant);
                let variants: Vec<_> = PEER_VARIANTS.iter().filter(here).collect();
                match Peer::attempt(&kernel, disk.unwrap_or(Path::new("")), firmware, &variants, deadline) {
                    Ok((process, mailbox)) => {
                        if let Some((vcpu, rest)) = pin {
                            process.pin(vcpu, rest);
                        }
                        let mut peer = Peer { process, mailbox, version, variants, absent };
                        peer.set_up().map_err(|e| e.to_string())?;
                        return Ok(peer);
                    }
                    Err(why) if Instant::now() > deadline => return Err(why),
                    Err(why) => failure = why,
                }
                if io_uring && disk.is_ok() {
                    absent.extend(
                        PEER_VARIANTS.iter().filter(|s| s.backend == IO_URING).map(|s| (s, failure.clone())),
                    );
                }
            }
        }
        Err(failure)
    }

    fn attempt(
        kernel: &MemFile,
        disk: &Path,
        firmware: &str,
        variants: &[&'static PeerVariant],
        deadline: Instant,
    ) -> Result<(PeerProcess, Mailbox), String> {
        // New, and so zeroed: otherwise the words of an earlier attempt would be mistaken for this guest's.
        let ram = MemFile::sparse(RAM_SIZE).map_err(|e| e.to_string())?;
        let path = |file: &MemFile| file.path_for_child().display().to_string();
        let files = Files { ram: path(&ram), kernel: path(kernel), disk: disk.display().to_string() };
        let range = (GuestAddress(0), RAM_SIZE as usize, Some(FileOffset::new(ram.into_file(), 0)));
        let memory = Ram::from_ranges_with_files([range]).map_err(|e| e.to_string())?;
        let mailbox = Mailbox::new(Arc::new(memory));
        // It spins between blocks as ours does, but its VMM is stopped then.
        let control = Control {
            magic: MAGIC,
            version: VERSION,
            mode: mode::HOST,
            idle: idle::SPIN,
            ..Control::default()
        };
        mailbox.write_control(&control);
        let arguments = qemu::arguments(&files, RAM_SIZE, DISK_BYTES, firmware, variants.iter().copied());
        let mut process = qemu::start(arguments)?;
        while mailbox.control().state != state::READY {
            if let Some(why) = process.ended() {
                return Err(why);
            }
            if let Some(error) = mailbox.trap() {
                return Err(error.to_string());
            }
            if Instant::now() > deadline {
                return Err(format!("its guest did not come up within {} s", START.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        process.set_running(false);
        match mailbox.devices().len() {
            found if found == variants.len() => Ok((process, mailbox)),
            found => Err(format!("its guest found {found} of {} disks", variants.len())),
        }
    }

    fn set_up(&mut self) -> Result<(), SessionError> {
        for device in 0..self.variants.len() as u32 {
            let vector = vector::PLAIN + 2 * device;
            self.run(GuestJob { kind: kind::SETUP, device, queues: 1, vector, ..GuestJob::default() })?;
        }
        Ok(())
    }

    fn run(&mut self, job: GuestJob) -> Result<Outcome, SessionError> {
        self.process.set_running(true);
        let seq = self.mailbox.give(&[(0, job)]);
        let (process, done) = (&mut self.process, |mailbox: &Mailbox| mailbox.is_done(0, seq));
        let waited = self.mailbox.wait(BLOCK_SECONDS, || process.ended(), done);
        self.process.set_running(false);
        waited?;
        completed(self.mailbox.outcome(0), &job)
    }

    /// Runs one block. Only the guest's counts are available.
    ///
    /// # Errors
    /// QEMU ended, or the block did not complete.
    pub fn block(&mut self, job: GuestJob) -> Result<Block, SessionError> {
        let outcome = self.run(job)?;
        let samples = self.mailbox.samples(0, &outcome);
        Ok(Block {
            round_trip: samples.iter().map(|sample| sample.done.into()).collect(),
            ticks: outcome.tsc_end - outcome.tsc_begin,
            requests: outcome.completed.into(),
            kicks: outcome.kicks,
            guest_interrupts: outcome.interrupts,
            ..Block::default()
        })
    }
}
