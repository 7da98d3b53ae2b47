use super::super::probe_abi::{GuestJob, Sample};
use super::bench::Bench;
use super::error::{ProbeError, SessionError};
use super::floor::{Answer, Style};
use super::one_way::{OneWay, one_way};
use super::row_stats::Block;
use super::work::{Work, Workload};
use crate::bench::DiskCounts;

/// Longest duration of a block, in seconds.
const BLOCK_SECONDS: f64 = 0.15;

impl Bench<'_> {
    /// Runs one unmeasured block before the rounds, so that the first page faults and exits, and the opening of a polling
    /// window, are not measured. Returns the number of requests for a block of this kind: as configured, or fewer if the
    /// path is so slow that a block would take longer than [`BLOCK_SECONDS`] (level interrupts go through the host's
    /// work queue, which may be busy).
    pub(super) fn warm_up(&mut self, work: Work) -> Result<u32, ProbeError> {
        let few = self.config.requests / 40 + 1;
        let block = self.block(work, few)?;
        let seconds = block.ticks as f64 / self.ticks_per_second;
        let fitting = (BLOCK_SECONDS / seconds * f64::from(few)) as u32;
        Ok(self.config.requests.min(fitting.max(few)))
    }

    pub(super) fn block(&mut self, work: Work, requests: u32) -> Result<Block, ProbeError> {
        let ticks = self.ticks_per_second;
        let block = match work {
            Work::Floor(style, answer) => self.floor_block(style, answer, requests),
            Work::Disk(workload, n) => self.disk_block(workload, n, requests),
            Work::KvmInterrupt => match &mut self.no_irqchip {
                Ok(machine) => machine.block(requests),
                Err(why) => Err(SessionError::Ended(why.clone())),
            },
            Work::Peer(workload, n) => match self.peer.iter_mut().flatten().next() {
                Some(peer) => peer.block(workload.job(n, requests, ticks)),
                None => Err(SessionError::Ended("the reference VMM does not run".into())),
            },
        };
        block.map_err(|error| ProbeError::Block(self.name(work), error))
    }

    fn exits(&self) -> u64 {
        self.session.parts().exits.iter().map(|exits| exits.total()).sum()
    }

    /// All exits, including those that KVM handled by itself; `None`: KVM does not report them.
    fn all_exits(&self) -> Option<u64> {
        self.session.parts().exits.iter().map(|exits| exits.all_exits()).sum()
    }

    fn waits(&self) -> u64 {
        let load = |handle: &crate::dataplane::LoopHandle| {
            handle.counters().waits.load(std::sync::atomic::Ordering::Relaxed)
        };
        self.session.parts().loops.iter().map(load).sum()
    }

    /// CPU time of all I/O threads; those that serve other disks sleep.
    fn cpu_ns(&self) -> Option<u64> {
        self.session.parts().loops.iter().map(|handle| handle.counters().cpu_ns()).sum()
    }

    /// Runs a block in our guest; returns its samples, and the counts during it.
    fn counted(&mut self, job: GuestJob) -> Result<(Vec<Sample>, Block), SessionError> {
        let (exits, all_exits) = (self.exits(), self.all_exits());
        let outcome = self.session.run(job)?;
        let block = Block {
            ticks: outcome.tsc_end - outcome.tsc_begin,
            requests: outcome.completed.into(),
            kicks: outcome.kicks,
            guest_interrupts: outcome.interrupts,
            exits_to_user: self.exits() - exits,
            exits: since(self.all_exits(), all_exits),
            ..Block::default()
        };
        Ok((self.session.samples(0, &outcome), block))
    }

    fn floor_block(&mut self, style: Style, answer: Answer, requests: u32) -> Result<Block, SessionError> {
        let job = self.floor.begin(style, answer, requests);
        let (samples, block) = self.counted(job)?;
        // The floor interrupts at once: one timestamp is both.
        let host: Vec<_> = self.floor.end(style).into_iter().map(|seen| (seen, seen)).collect();
        let one_way = if self.agree { OneWay::of(&samples, &host) } else { OneWay::default() };
        Ok(Block { round_trip: samples.iter().map(|sample| sample.seen.into()).collect(), one_way, ..block })
    }

    fn disk_block(&mut self, workload: Workload, n: usize, requests: u32) -> Result<Block, SessionError> {
        let disk = self.session.parts().disks[n].clone();
        let job = workload.job(n, requests, self.ticks_per_second);
        let (before, waits, cpu_ns) = (DiskCounts::of(&disk), self.waits(), self.cpu_ns());
        let (samples, block) = self.counted(job)?;
        let (disk_counts, waits) = (DiskCounts::of(&disk).since(&before), self.waits() - waits);
        let cpu_ns = since(self.cpu_ns(), cpu_ns);
        let alone = workload.depth == 1 && self.agree;
        Ok(Block {
            round_trip: samples.iter().map(|sample| sample.done.into()).collect(),
            disk: disk_counts,
            waits,
            cpu_ns,
            one_way: if alone { one_way(&mut self.session, &disk, job)? } else { OneWay::default() },
            ..block
        })
    }
}

fn since(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}
