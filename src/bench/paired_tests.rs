use super::*;

/// Wilcoxon's table, two-sided.
#[test]
fn critical_values_are_the_published_ones() {
    let table_05 =
        [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13), (15, 25), (20, 52), (25, 89)];
    for (n, value) in table_05 {
        assert_eq!(critical(n, 0.05), Some(value), "n={n}");
    }
    let table_01 = [(8, 0), (9, 1), (10, 3), (12, 7), (15, 15), (20, 37), (25, 68)];
    for (n, value) in table_01 {
        assert_eq!(critical(n, 0.01), Some(value), "n={n}");
    }
    assert_eq!((critical(5, 0.05), critical(7, 0.01), critical(0, 0.05)), (None, None, None));
}

#[test]
fn the_null_distribution_is_exact() {
    // 0 and 21 of 6 pairs: 2 of 64.
    let six = null(6);
    assert_eq!((six.len(), six[0] + six[21]), (22, 0.03125));
    // 1 = {1}, 3 = {3} or {1, 2}, 6 = {6}, {1, 5}, {2, 4} or {1, 2, 3}.
    assert_eq!([six[1], six[3], six[6]].map(|p| p * 64.0), [1.0, 2.0, 4.0]);
    assert!((null(EXACT).iter().sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn many_pairs_go_on_where_the_exact_distribution_ends() {
    // Wilcoxon's table ends at 100: 1955 at 0.05, 1779 at 0.01.
    assert_eq!((critical(100, 0.05), critical(100, 0.01)), (Some(1955), Some(1779)));
    for alpha in [0.05, 0.01, 0.001] {
        let (exact, next) = (critical(EXACT, alpha).unwrap(), critical(EXACT + 1, alpha).unwrap());
        assert!((exact + 20..exact + 50).contains(&next), "{exact} {next}");
    }
}

#[test]
fn the_fewest_pairs_are_those_that_can_reject() {
    for alpha in [0.05, 0.01, 0.05 / 47.0, 0.05 / 300.0] {
        let n = fewest_pairs(alpha);
        assert!(critical(n, alpha).is_some() && critical(n - 1, alpha).is_none(), "{alpha}: {n}");
    }
    assert_eq!((fewest_pairs(0.05), fewest_pairs(0.05 / 47.0)), (6, 11));
}

#[test]
fn the_estimate_is_the_median_of_the_averages() {
    let paired = |ratios: &[f64]| Paired::of(ratios.to_vec());
    assert!(paired(&[]).is_none() && paired(&[0.0, -1.0, f64::NAN, f64::INFINITY]).is_none());
    let two = paired(&[1.0, 4.0, 0.0]).unwrap();
    assert_eq!((two.pairs(), two.interval(0.05)), (2, None));
    assert!((two.ratio() - 2.0).abs() < 1e-12);
    // With 6 pairs the interval reaches from the lowest to the highest ratio; a stall moves only one end.
    let six = paired(&[1.01, 0.99, 1.02, 0.98, 1.0, 40.0]).unwrap();
    let (low, high) = six.interval(0.05).unwrap();
    assert!((low - 0.98).abs() < 1e-12 && (high - 40.0).abs() < 1e-9, "{low} {high}");
    assert!((0.98..1.05).contains(&six.ratio()), "{}", six.ratio());
    // With 8 pairs the interval ends at the fourth average from either end: the stall is outside.
    let eight = paired(&[1.01, 0.99, 1.02, 0.98, 1.0, 40.0, 1.01, 0.99]).unwrap();
    assert!(eight.interval(0.05).unwrap().1 < 7.0);
    // The other way round, everything is inverted.
    let inverse = paired(&[1.0 / 1.01, 1.0 / 0.99, 1.0 / 1.02, 1.0 / 0.98, 1.0, 1.0 / 40.0]).unwrap();
    assert!((inverse.ratio() * six.ratio() - 1.0).abs() < 1e-12);
}

/// Pseudorandom numbers, the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A round's time: noise of some 10 %, and in one of 20 rounds a stall of up to 20 times.
    fn time(&mut self) -> f64 {
        let noise: f64 = (0..4).map(|_| self.unit()).sum::<f64>() / 4.0;
        let stall = if self.unit() < 0.05 { 1.0 + 19.0 * self.unit() } else { 1.0 };
        (0.85 + 0.3 * noise) * stall
    }
}

/// How many of 2000 simulated comparisons exclude 1 if the second is `factor` times the first.
fn found(rounds: usize, factor: f64) -> usize {
    let mut dice = Dice(rounds as u64);
    let one = |_| {
        let pairs: Vec<f64> = (0..rounds).map(|_| dice.time() / (factor * dice.time())).collect();
        let (low, high) = Paired::of(pairs).unwrap().interval(0.05).unwrap();
        low > 1.0 || high < 1.0
    };
    (0..2000).map(one).filter(|&found| found).count()
}

#[test]
fn equal_rows_are_rarely_called_different_and_more_rounds_find_more() {
    // 5 % of 2000, and three standard deviations of that.
    for rounds in [6, 8, 12, 20] {
        assert!(found(rounds, 1.0) <= 100 + 30, "{rounds}: {}", found(rounds, 1.0));
    }
    let power: Vec<_> = [6, 20, 40].map(|rounds| found(rounds, 1.05)).to_vec();
    assert!(power.is_sorted() && power[2] > 1800, "{power:?}");
}
