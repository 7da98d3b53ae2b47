use super::*;
use crate::bench::{Schedule, tells_apart};

fn row(job: &str, depth: u64, p50: &[f64], iops: &[f64]) -> Row {
    let all = |values: &[f64]| values.iter().copied().map(Some).collect();
    let (round_p50_ns, round_iops) = (all(p50), all(iops));
    Row {
        guest: "probe".into(),
        job: job.into(),
        depth: Some(depth),
        round_p50_ns,
        round_iops,
        ..Row::default()
    }
}

fn near(value: Option<f64>, wanted: f64) -> bool {
    value.is_some_and(|value| (value / wanted - 1.0).abs() < 1e-9)
}

#[test]
fn one_at_a_time_the_medians_are_compared_else_the_iops_and_above_1_is_faster() {
    let mut rows = [
        row("a", 1, &[100.0; 6], &[9.0; 6]),
        row("a", 1, &[50.0; 6], &[1.0; 6]),
        row("b", 32, &[100.0; 6], &[10.0; 6]),
        row("b", 32, &[1.0; 6], &[5.0; 6]),
    ];
    fill_ratios(&mut rows);
    assert_eq!((rows[0].ratio, &rows[0].ratio_of, &rows[0].verdict), (None, &None, &None), "it is the first");
    assert!(near(rows[1].ratio, 2.0) && near(rows[1].ratio_low, 2.0), "{:?}", rows[1]);
    assert!(near(rows[3].ratio, 0.5) && near(rows[3].ratio_high, 0.5), "{:?}", rows[3]);
    let of = [&rows[1], &rows[3]].map(|row| row.ratio_of.as_deref());
    assert_eq!(of, [Some("p50"), Some("iops")]);
    // Two comparisons need one round more than one.
    assert_eq!(rows[1].verdict.as_deref(), Some("too few rounds: 6, and 2 comparisons need 8"));
    let mut one = [rows[0].clone(), rows[1].clone()];
    fill_ratios(&mut one);
    assert_eq!(one[1].verdict.as_deref(), Some("2.0 x faster (2.0 to 2.0)"));
}

#[test]
fn pairs_are_of_the_same_round_and_a_lost_round_counts_for_nothing() {
    let mut rows = [row("a", 8, &[], &[1.0, 2.0, 4.0, 0.0]), row("a", 8, &[], &[2.0, 9.0, 8.0, 5.0])];
    rows[1].round_iops[1] = None;
    fill_ratios(&mut rows);
    assert!(near(rows[1].ratio, 2.0), "{:?}", rows[1]);
    assert_eq!((rows[1].ratio_low, rows[1].ratio_high), (None, None), "fewer than 6 rounds");
    assert_eq!(rows[1].verdict.as_deref(), Some("too few rounds: 2, and a comparison needs 6"));
    rows[1].round_iops.clear();
    fill_ratios(&mut rows);
    assert_eq!((rows[1].ratio, &rows[1].ratio_of, &rows[1].verdict), (None, &None, &None));
}

#[test]
fn another_guest_or_a_missing_row_is_not_a_first_row() {
    let mut rows = [row("a", 8, &[], &[1.0; 6]), row("a", 8, &[], &[2.0; 6]), row("a", 8, &[], &[8.0; 6])];
    rows[0].guest = "linux".into();
    fill_ratios(&mut rows);
    assert!(rows[1].ratio.is_none() && near(rows[2].ratio, 4.0));
    rows[0].guest = "probe".into();
    rows[0].not_here = Some("no".into());
    fill_ratios(&mut rows);
    assert!(rows[1].ratio.is_none() && near(rows[2].ratio, 4.0));
}

/// Pseudorandom numbers, the same in every run.
fn noise(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    0.8 + 0.4 * (*seed >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn of_reports_without_a_difference_one_in_20_claims_any() {
    let (mut seed, mut wrong) = (1, 0);
    for _ in 0..1000 {
        let mut iops = || (0..10).map(|_| noise(&mut seed)).collect::<Vec<_>>();
        let mut rows: Vec<_> = (0..9).map(|_| row("a", 8, &[], &iops())).collect();
        fill_ratios(&mut rows);
        wrong += i32::from(rows.iter().flat_map(|row| &row.verdict).any(|v| tells_apart(v)));
    }
    // 5 % of 1000, and three standard deviations of that.
    assert!(wrong <= 50 + 21, "{wrong}");
}

/// Simulated runs of the self-test: one path as two disks, the second `factor` times as slow, in the order of a real run. The
/// host becomes slower by a fifth over the run, what comes first of two has an advantage of 3 %, a round's noise is some 2 %,
/// and one block in 30 stalls for up to ten times. How many of 200 claim a difference?
fn claims(rounds: usize, factor: f64) -> usize {
    let mut seed = 7;
    let one_run = |_| {
        let schedule = Schedule { jobs: vec![1, 32, 33], paths: vec![1.0, factor], rounds };
        let mut rows: Vec<_> = (0..6).map(|n| row(&n.to_string(), schedule.jobs[n / 2], &[], &[])).collect();
        (0..6).for_each(|n| rows[n].job = (n / 2).to_string());
        for (n, step) in schedule.steps().into_iter().enumerate() {
            let drift = 1.0 + 0.2 * n as f64 / (6 * rounds) as f64;
            let first = if n.is_multiple_of(2) { 0.97 } else { 1.0 };
            let stall = if noise(&mut seed) < 0.8 + 0.4 / 30.0 { 10.0 * noise(&mut seed) } else { 1.0 };
            let noise = 0.9 + 0.1 * noise(&mut seed);
            let time = schedule.paths[step.path] * drift * first * stall * noise;
            let row = &mut rows[2 * step.job + step.path];
            row.round_p50_ns.push(Some(1000.0 * time));
            row.round_iops.push(Some(1e6 / time));
        }
        fill_ratios(&mut rows);
        rows.iter().flat_map(|row| &row.verdict).filter(|verdict| tells_apart(verdict)).count()
    };
    (0..200).map(one_run).filter(|&found| found > 0).count()
}

#[test]
fn a_path_against_itself_rarely_differs_and_a_planted_delay_of_5_percent_is_found() {
    // A run is an error if any of its three verdicts is. 5 % of 200 is 10.
    for rounds in [10, 12, 20] {
        assert!(claims(rounds, 1.0) <= 10, "{rounds}: {} of 200", claims(rounds, 1.0));
    }
    let found = [10, 12, 20].map(|rounds| claims(rounds, 1.05));
    println!("false: {:?}, found: {found:?} of 200", [10, 12, 20].map(|rounds| claims(rounds, 1.0)));
    assert!(found.is_sorted() && found[1] >= 190, "{found:?} of 200");
}
