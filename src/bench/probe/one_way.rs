use super::super::probe_abi::{GuestJob, Sample};
use super::error::SessionError;
use super::floor::tsc;
use super::session::Session;
use crate::dataplane::RequestTimestamps;
use crate::host::monotonic_ns;
use crate::virtio::VirtioBlk;

/// Most requests of a block whose one-way latencies are measured.
const REQUESTS: u32 = 200;

/// The one-way latencies of round trips, in ticks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OneWay {
    /// From before the guest's store to the thread that saw it.
    pub kick: Vec<u64>,
    /// From the moment before each interrupt until the guest saw its handler's mark.
    pub interrupt: Vec<u64>,
}

impl OneWay {
    /// Combines the guest's samples with the host's counter at each: when the thread saw the kick, and just before it
    /// interrupted. Empty if their numbers differ: one missing entry would shift all that follow.
    pub fn of(samples: &[Sample], host: &[(u64, u64)]) -> OneWay {
        let mut latencies = OneWay::default();
        if samples.len() == host.len() {
            for (sample, &(seen, interrupting)) in samples.iter().zip(host) {
                latencies.kick.push(seen.saturating_sub(sample.start));
                latencies
                    .interrupt
                    .push((sample.start + u64::from(sample.seen)).saturating_sub(interrupting));
            }
        }
        latencies
    }
}

/// Runs a block like `job` with the queue's timestamps on and splits its round trips. The measured blocks run without
/// timestamps. Needs one request at a time, and a guest whose time-stamp counter is the host's.
pub(super) fn one_way(
    session: &mut Session,
    disk: &VirtioBlk,
    job: GuestJob,
) -> Result<OneWay, SessionError> {
    let Some(queue) = disk.counters().first() else { return Ok(OneWay::default()) };
    let requests = job.requests.min(REQUESTS);
    queue.trace.start(requests as usize);
    let before = Moment::now();
    let outcome = session.run(GuestJob { requests, ..job });
    let clock = Clock { before, after: Moment::now() };
    let timestamps = queue.trace.stop().map(|recorded| recorded.requests).unwrap_or_default();
    Ok(split(&session.samples(0, &outcome?), &timestamps, &clock))
}

/// Both counters at one moment.
#[derive(Clone, Copy)]
struct Moment {
    tsc: u64,
    ns: u64,
}

impl Moment {
    /// The closest of several readings: the thread may be preempted between the two clocks.
    fn now() -> Moment {
        let read = || {
            let (first, ns, last) = (tsc(), monotonic_ns(), tsc());
            (last - first, Moment { tsc: first + (last - first) / 2, ns })
        };
        let (_, moment) = (0..8).map(|_| read()).min_by_key(|(apart, _)| *apart).unwrap_or_else(read);
        moment
    }
}

/// CLOCK_MONOTONIC in ticks, from readings of both clocks before and after.
struct Clock {
    before: Moment,
    after: Moment,
}

impl Clock {
    fn ticks(&self, ns: u64) -> u64 {
        let rate = (self.after.tsc - self.before.tsc) as f64 / (self.after.ns - self.before.ns).max(1) as f64;
        self.before.tsc.saturating_add_signed(((ns as f64 - self.before.ns as f64) * rate) as i64)
    }
}

fn split(samples: &[Sample], timestamps: &[RequestTimestamps], clock: &Clock) -> OneWay {
    let host: Vec<_> = timestamps
        .iter()
        .map(|timestamps| (clock.ticks(timestamps.seen), clock.ticks(timestamps.published)))
        .collect();
    // Drop the first request: its kick came before the thread knew of the trace.
    OneWay::of(samples.get(1..).unwrap_or_default(), host.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_split_at_the_hosts_stamps() {
        // 2 ticks a nanosecond; the clocks began at different times.
        let clock = Clock {
            before: Moment { tsc: 1_000_000, ns: 50_000 },
            after: Moment { tsc: 3_000_000, ns: 1_050_000 },
        };
        let sample = |start, seen| Sample { start, seen, ..Sample::default() };
        let stamp = |seen, published| RequestTimestamps { seen, published, ..RequestTimestamps::default() };
        let samples = [sample(1_000_000, 9), sample(1_200_000, 80_000)];
        let timestamps = [stamp(60_000, 61_000), stamp(160_000, 170_000)];
        // The second request: kicked at 1,200,000, seen at 1,220,000, published at 1,240,000, interrupted at 1,280,000.
        let expected = OneWay { kick: vec![20_000], interrupt: vec![40_000] };
        assert_eq!(split(&samples, &timestamps, &clock), expected);
        assert_eq!(split(&samples, &timestamps[1..], &clock), OneWay::default());
    }
}
