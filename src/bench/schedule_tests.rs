use super::*;

fn schedule(jobs: usize, paths: usize, rounds: usize) -> Schedule<usize> {
    let path = PathPair { notify: NotifyPath::Mmio, complete: CompletePath::Irqfd };
    Schedule { jobs: (0..jobs).collect(), paths: vec![path; paths], rounds }
}

#[test]
fn every_combination_comes_once() {
    let mut seen: Vec<_> = schedule(3, 2, 5).steps().iter().map(|s| (s.round, s.job, s.path)).collect();
    assert_eq!(seen.len(), 30);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 30);
}

#[test]
fn paths_of_a_job_are_neighbours_and_turn_round_every_round() {
    let steps = schedule(2, 2, 2).steps();
    let order: Vec<_> = steps.iter().map(|s| (s.job, s.path)).collect();
    assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1), (0, 0), (1, 1), (1, 0)]);
    // Over two rounds, every path of three stands on average in the same place.
    for path in 0..3 {
        let places = schedule(1, 3, 2).steps();
        let sum: usize =
            places.iter().enumerate().filter(|(_, s)| s.path == path).map(|(at, _)| at % 3).sum();
        assert_eq!(sum, 2);
    }
}

#[test]
fn paths_are_read_in_full_or_in_part() {
    let full: PathPairName = "exit+signal-msi".parse().unwrap();
    let (notify, complete) = (Some(NotifyPath::Exit), Some(CompletePath::SignalMsi));
    assert_eq!(full, PathPairName { notify, complete, moderated: false });
    assert_eq!("signal-msi".parse(), Ok(PathPairName { notify: None, complete, moderated: false }));
    assert_eq!("exit".parse(), Ok(PathPairName { notify, complete: None, moderated: false }));
    for wrong in ["", "irq", "irqfd+signal-msi", "exit+", "mmio+exit", "mmio+irqfd+auto"] {
        assert!(wrong.parse::<PathPairName>().unwrap_err().contains("fast-mmio"), "{wrong}");
    }
}
