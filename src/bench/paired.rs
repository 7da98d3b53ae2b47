//! The ratio of paired measurements: the Hodges-Lehmann estimate, and the interval of the signed-rank test.
//!
//! Each round measures both rows, and the ratio of the two is one value. The test assumes only one thing about the
//! distribution of the rounds: without a difference, a ratio is as likely as its inverse. One stalled round moves neither
//! the estimate nor the interval far.

/// Up to this many pairs the distribution is exact. For more pairs the normal distribution replaces it, with nearly the same result.
const EXACT: usize = 100;

/// Paired measurements.
#[derive(Clone, Debug)]
pub struct Paired {
    /// The Walsh averages, sorted: the means of every two logarithms of ratios, each also with itself.
    averages: Vec<f64>,
    /// Number of pairs.
    pairs: usize,
}

impl Paired {
    /// From ratios, one per pair. Values that are not positive numbers are dropped; `None`: no value is left.
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Option<Paired> {
        let logs: Vec<f64> = ratios.into_iter().map(f64::ln).filter(|log| log.is_finite()).collect();
        let pairs = logs.len();
        let averages = (0..pairs).flat_map(|a| logs[a..].iter().map(move |b| (a, b)));
        let mut averages: Vec<f64> = averages.map(|(a, b)| (logs[a] + b) / 2.0).collect();
        averages.sort_by(f64::total_cmp);
        (pairs > 0).then_some(Paired { averages, pairs })
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// The median of the averages: the Hodges-Lehmann estimate of the ratio.
    pub fn ratio(&self) -> f64 {
        let (low, high) = ((self.averages.len() - 1) / 2, self.averages.len() / 2);
        ((self.averages[low] + self.averages[high]) / 2.0).exp()
    }

    /// The ratios that a two-sided signed-rank test at level `alpha` does not reject; `None`: there are too few pairs to
    /// reject any.
    pub fn interval(&self, alpha: f64) -> Option<(f64, f64)> {
        let cut = critical(self.pairs, alpha)?;
        Some((self.averages[cut].exp(), self.averages[self.averages.len() - 1 - cut].exp()))
    }
}

/// The fewest pairs that give an interval at level `alpha`.
pub fn fewest_pairs(alpha: f64) -> usize {
    // The most extreme outcome, all signs alike, has probability 2 / 2^n.
    (1..=EXACT).find(|&n| 2f64.powi(1 - n as i32) <= alpha).unwrap_or(EXACT)
}

/// The largest sum of ranks that a two-sided test of `pairs` pairs rejects at level `alpha`, if any.
fn critical(pairs: usize, alpha: f64) -> Option<usize> {
    if pairs > EXACT {
        let n = pairs as f64;
        let (mean, deviation) = (n * (n + 1.0) / 4.0, (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt());
        return Some((mean - quantile(alpha / 2.0) * deviation - 0.5).max(0.0) as usize);
    }
    let mut below = 0.0;
    let rejected = null(pairs).into_iter().take_while(|probability| {
        below += probability;
        2.0 * below <= alpha
    });
    rejected.count().checked_sub(1)
}

/// The probability of each sum of ranks (0, 1, 2, ...) if both signs are equally likely.
fn null(pairs: usize) -> Vec<f64> {
    let mut sums = vec![0.0; pairs * (pairs + 1) / 2 + 1];
    sums[0] = 1.0;
    for rank in 1..=pairs {
        for sum in (0..sums.len()).rev() {
            let with = if sum >= rank { sums[sum - rank] } else { 0.0 };
            sums[sum] = (sums[sum] + with) / 2.0;
        }
    }
    sums
}

/// The number of standard deviations above the mean that a normal value exceeds with probability `tail` (Abramowitz and
/// Stegun 26.2.23, error below 0.00045).
pub(super) fn quantile(tail: f64) -> f64 {
    let t = (-2.0 * tail.ln()).sqrt();
    t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
}

#[cfg(test)]
#[path = "paired_tests.rs"]
mod tests;
