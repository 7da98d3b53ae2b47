use super::*;
use crate::bench::testing::report;

fn verdict(ratios: &[f64], comparisons: usize) -> String {
    Verdict::of(&Paired::of(ratios.to_vec()).unwrap(), comparisons).to_string()
}

#[test]
fn a_verdict_says_what_was_shown_and_what_would_have_been() {
    assert_eq!(
        verdict(&[0.98, 1.04, 1.01, 1.01, 1.02, 1.0], 1),
        "no difference shown (1.01, 95 % 0.98 to 1.04); a difference of 5 % would have shown"
    );
    assert_eq!(verdict(&[2.4, 2.6, 2.8, 2.6, 2.5, 2.7], 1), "2.6 x faster (2.4 to 2.8)");
    let slower = [2.4, 2.6, 2.8, 2.6, 2.5, 2.7].map(|ratio| 1.0 / ratio);
    assert_eq!(verdict(&slower, 1), "2.6 x slower (2.4 to 2.8)");
    assert_eq!(verdict(&[1.02; 6], 1), "1.020 x faster (1.020 to 1.020)");
    assert_eq!(verdict(&[1.0; 5], 1), "too few rounds: 5, and a comparison needs 6");
    assert_eq!(verdict(&[9.0; 6], 47), "too few rounds: 6, and 47 comparisons need 12");
    assert_eq!(verdict(&[9.0; 12], 47), "9.0 x faster (9.0 to 9.0)");
    let told =
        [&[9.0; 12][..], &[0.1; 12], &[1.0; 12], &[9.0; 5]].map(|rounds| tells_apart(&verdict(rounds, 1)));
    assert_eq!(told, [true, true, false, false]);
}

#[test]
fn more_comparisons_make_the_interval_wider_never_narrower() {
    let ratios: Vec<f64> = (0..12).map(|n| 1.02 + 0.01 * f64::from(n)).chain([0.9]).collect();
    assert!(verdict(&ratios, 1).contains("x faster"));
    assert!(verdict(&ratios, 100).starts_with("no difference shown"), "{}", verdict(&ratios, 100));
}

#[test]
fn a_difference_that_would_have_shown_lies_beyond_both_ends() {
    let cases = [((0.995, 1.004), "1 %"), ((0.99, 1.0), "2 %"), ((0.5, 1.0), "2.1 x"), ((1.0, 30.5), "31 x")];
    for ((low, high), wanted) in cases {
        assert_eq!(shown(low, high), wanted);
    }
}

#[test]
fn verdicts_stand_by_job_and_one_that_all_share_stands_once() {
    let mut rows = report().rows;
    let found = verdicts(&rows);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].heading, "rand-read-1, p50, against fast-mmio + irqfd, io_uring");
    assert_eq!(found[1].heading, "rand-read-32, IOPS, against fast-mmio + irqfd, io_uring");
    assert_eq!(found[0].rows[0].0, "fast-mmio + signal-msi, io_uring");
    for row in rows.iter_mut().filter(|row| row.verdict.is_some()) {
        row.verdict = Some("too few rounds".into());
    }
    let found = verdicts(&rows);
    assert_eq!((found.len(), found[0].rows.len()), (1, 1));
    assert_eq!(found[0].rows[0], ("every row".to_string(), "too few rounds".to_string()));
    assert!(verdicts(&[]).is_empty());
}
