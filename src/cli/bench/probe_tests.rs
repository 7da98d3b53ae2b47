use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ProbeArgs,
    #[command(flatten)]
    common: Common,
}

fn config(line: &str) -> Result<ProbeConfig, String> {
    let line = Line::try_parse_from(["bench"].into_iter().chain(line.split_whitespace()));
    let line = line.map_err(|e| e.to_string())?;
    line.args.config(&line.common, &[0, 1, 5]).map_err(|failure| {
        assert_eq!(failure.code, 2);
        failure.message
    })
}

#[test]
fn without_flags_nothing_is_pinned_and_both_ways_of_waiting_are_measured() {
    let config = config("").unwrap();
    assert_eq!((config.rounds, config.poll_us, config.pin, config.filter), (ROUNDS, POLL_US, None, None));
}

#[test]
fn flags_reach_the_bench() {
    let config = config("--rounds 1 --poll-us 0 --pin 5,1 --filter irqfd --requests 7").unwrap();
    assert_eq!((config.rounds, config.poll_us, config.pin, config.requests), (1, 0, Some((5, 1)), 7));
    assert_eq!(config.filter.as_deref(), Some("irqfd"));
}

#[test]
fn nonsense_is_refused_in_a_sentence() {
    let cases = [
        ("--pin 0,7", "may not run on CPU 7; it may use 0, 1, 5"),
        ("--pin 0", "vcpu0=2"),
        ("--pin vcpu=0", "both or neither"),
        ("--pin vcpu3=0,iothread=1", "no vcpu3"),
        ("--rounds 0", "1..=1000"),
        ("--requests 0", "1..=50000"),
        ("--poll-us 9000000", "0..=1000000"),
        ("--progress loud", "lines"),
    ];
    for (line, wanted) in cases {
        let error = config(line).unwrap_err();
        assert!(error.contains(wanted), "{line}: {error}");
    }
}

#[test]
fn this_process_has_a_cpu() {
    assert!(!allowed_cpus().is_empty());
}
