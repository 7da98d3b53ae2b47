//! Checks that the figures of a row are consistent, whatever was measured.

use super::Row;

/// Largest difference between two counts, or between numbers of requests in flight.
const TOLERANCE: f64 = 0.05;
/// Fewest requests per round of a row that is checked; with fewer, the beginning and the end of a block weigh too much.
const REQUESTS_PER_DEPTH: u64 = 30;
/// Jobs in which a request's time begins before its submission, while it still waits in the application.
const ONE_BY_ONE: &str = "one-by-one";

/// The checks that failed, as sentences; usually none.
pub fn failed_checks(row: &Row) -> Vec<String> {
    [in_flight(row), interrupts(row)].into_iter().flatten().collect()
}

/// Little's law: requests in flight are the rate times the mean latency.
fn in_flight(row: &Row) -> Option<String> {
    let (depth, iops, mean_ns) = (row.depth?, row.iops?, row.mean_ns?);
    let each_round = row.requests.map(|all| all / row.round_iops.len().max(1) as u64);
    let too_few = each_round.is_some_and(|requests| requests < REQUESTS_PER_DEPTH * depth);
    if too_few || row.job.contains(ONE_BY_ONE) {
        return None;
    }
    let in_flight = iops * mean_ns / 1e9;
    let wrong = (in_flight / depth as f64 - 1.0).abs() > TOLERANCE;
    wrong.then(|| format!("IOPS x mean latency is {in_flight:.2} requests in flight, not {depth}"))
}

/// The guest takes the interrupts that the host sends. The guest may take several as one, but not if each request waits
/// for its own interrupt. Not checked: levels, which may interrupt again, and passed-through devices, whose interrupts
/// may bypass the host.
fn interrupts(row: &Row) -> Option<String> {
    let message = matches!(row.complete.as_deref(), Some("irqfd" | "signal-msi"));
    let (sent, taken) = (row.interrupts?, row.guest_interrupts?);
    if !message || row.device.is_some() {
        return None;
    }
    let slack = (TOLERANCE * sent as f64) as u64 + 1;
    let lost = row.depth == Some(1) && taken + slack < sent;
    (lost || taken > sent + slack).then(|| format!("the host sent {sent} interrupts, the guest took {taken}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            job: "read-512-1".into(),
            complete: Some("irqfd".into()),
            depth: Some(1),
            iops: Some(20_000.0),
            round_iops: vec![Some(20_000.0); 6],
            mean_ns: Some(49_000.0),
            requests: Some(6000),
            interrupts: Some(6000),
            guest_interrupts: Some(5990),
            ..Row::default()
        }
    }

    fn failed(row: Row) -> String {
        failed_checks(&row).join("; ")
    }

    #[test]
    fn consistent_and_unknown_values_give_no_warning() {
        assert_eq!(failed(row()), "");
        assert_eq!(failed(Row::default()), "");
    }

    #[test]
    fn requests_in_flight_are_the_depth() {
        let slow = Row { mean_ns: Some(47_000.0), ..row() };
        assert_eq!(failed(slow.clone()), "IOPS x mean latency is 0.94 requests in flight, not 1");
        assert_eq!(failed(Row { job: "read-512-1-one-by-one".into(), ..slow.clone() }), "");
        assert_eq!(failed(Row { requests: Some(60), interrupts: None, ..slow }), "", "too few to tell");
    }

    #[test]
    fn interrupts_may_be_merged_only_where_several_requests_are_in_flight() {
        let merged = Row { guest_interrupts: Some(4000), ..row() };
        assert_eq!(failed(merged.clone()), "the host sent 6000 interrupts, the guest took 4000");
        let deep = Row { depth: Some(32), mean_ns: Some(1_600_000.0), ..merged };
        assert_eq!(failed(deep.clone()), "");
        let more = Row { guest_interrupts: Some(7000), ..deep };
        assert!(failed(more.clone()).contains("took 7000"));
        assert_eq!(failed(Row { complete: Some("resample".into()), ..more.clone() }), "");
        assert_eq!(failed(Row { device: Some("0000:01:00.0".into()), ..more }), "");
    }
}
