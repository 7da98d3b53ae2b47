//! What two groups of runs say about a ratio: the Hodges-Lehmann estimate and the interval of the Mann-Whitney test.
//!
//! Runs at different times cannot be paired. The test asks only that, without a difference, each run could as well be of the
//! other group. What varies between boots varies between runs, so one run a side shows nothing.

/// Products of the groups' sizes up to this have the exact distribution.
const EXACT: usize = 2500;

/// What the runs say.
#[derive(Clone, Debug)]
pub struct Unpaired {
    /// Sorted logarithms of every ratio of a new run to a base one.
    ratios: Vec<f64>,
    base: usize,
    new: usize,
}

impl Unpaired {
    /// Of one positive value per run, larger is better. `None`: a group has none.
    pub fn of(base: &[f64], new: &[f64]) -> Option<Unpaired> {
        let logs = |values: &[f64]| -> Vec<f64> {
            values.iter().map(|value| value.ln()).filter(|log| log.is_finite()).collect()
        };
        let (base, new) = (logs(base), logs(new));
        let mut ratios: Vec<f64> =
            new.iter().flat_map(|new| base.iter().map(move |base| new - base)).collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then_some(Unpaired { ratios, base: base.len(), new: new.len() })
    }

    /// Runs of the smaller group.
    pub fn runs(&self) -> usize {
        self.base.min(self.new)
    }

    /// The median of all ratios.
    pub fn ratio(&self) -> f64 {
        let (low, high) = ((self.ratios.len() - 1) / 2, self.ratios.len() / 2);
        ((self.ratios[low] + self.ratios[high]) / 2.0).exp()
    }

    /// The ratios that a two-sided test at level `alpha` does not reject; `None`: the runs are too few to reject any.
    pub fn interval(&self, alpha: f64) -> Option<(f64, f64)> {
        let cut = critical(self.base, self.new, alpha)?;
        Some((self.ratios[cut].exp(), self.ratios[self.ratios.len() - 1 - cut].exp()))
    }
}

/// The fewest runs a side that give an interval at level `alpha`.
pub fn fewest_runs(alpha: f64) -> usize {
    (1..40).find(|&n| critical(n, n, alpha).is_some()).unwrap_or(40)
}

/// The largest U that a two-sided test rejects at level `alpha`, if any.
fn critical(m: usize, n: usize, alpha: f64) -> Option<usize> {
    if m * n > EXACT {
        let (m, n) = (m as f64, n as f64);
        let deviation = (m * n * (m + n + 1.0) / 12.0).sqrt();
        let cut = m * n / 2.0 - super::paired::quantile(alpha / 2.0) * deviation - 0.5;
        return (cut >= 0.0).then_some(cut as usize);
    }
    let counts = null(m, n);
    let all: f64 = counts.iter().sum();
    let mut below = 0.0;
    let rejected = counts.iter().take_while(|count| {
        below += **count;
        2.0 * below / all <= alpha
    });
    rejected.count().checked_sub(1)
}

/// In how many ways each U (0, 1, 2, ...) comes about, if every order of the runs is as likely as any other: the Gaussian
/// binomial coefficients.
fn null(m: usize, n: usize) -> Vec<f64> {
    let len = m * n + 1;
    let mut counts = vec![0.0; len];
    counts[0] = 1.0;
    for i in 1..=n {
        // Times (1 - q^(m + i)), then divided by (1 - q^i).
        for u in (m + i..len).rev() {
            counts[u] -= counts[u - m - i];
        }
        for u in i..len {
            counts[u] += counts[u - i];
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_are_those_of_the_published_table() {
        // Mann-Whitney, two-sided 0.05.
        for (m, n, value) in
            [(4, 4, 0), (5, 5, 2), (6, 6, 5), (7, 5, 5), (8, 8, 13), (10, 10, 23), (20, 20, 127)]
        {
            assert_eq!(critical(m, n, 0.05), Some(value), "{m} {n}");
        }
        // And 0.01.
        assert_eq!((critical(5, 5, 0.01), critical(10, 10, 0.01)), (Some(0), Some(16)));
        assert_eq!((critical(3, 3, 0.05), fewest_runs(0.05), fewest_runs(0.01)), (None, 4, 5));
        assert_eq!(null(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
    }

    #[test]
    fn the_normal_distribution_takes_over_where_the_exact_one_ends() {
        let exact = critical(50, 50, 0.05).unwrap() as f64 / 2500.0;
        let normal = critical(51, 50, 0.05).unwrap() as f64 / 2550.0;
        assert!((exact - normal).abs() < 0.005, "{exact} {normal}");
    }

    #[test]
    fn a_shift_is_found_and_one_outlier_is_not_one() {
        let base = [100.0, 101.0, 99.0, 100.5, 98.5, 102.0];
        let faster = base.map(|value| value * 1.1);
        let found = Unpaired::of(&base, &faster).unwrap();
        let (low, high) = found.interval(0.05).unwrap();
        assert!(low > 1.05 && high < 1.15 && (found.ratio() - 1.1).abs() < 0.01, "{low} {high}");
        let mut same = base;
        same[0] = 1000.0;
        let (low, high) = Unpaired::of(&base, &same).unwrap().interval(0.05).unwrap();
        assert!(low < 1.0 && 1.0 < high);
        assert!(Unpaired::of(&base[..3], &faster[..3]).unwrap().interval(0.05).is_none());
        assert!(Unpaired::of(&[], &faster).is_none());
    }
}
