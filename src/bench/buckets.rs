//! Distributions of latencies: small enough for a report, fine enough for a plot.

use std::collections::BTreeMap;

/// Counts by size, in buckets whose bounds are equally far apart on a logarithmic axis.
///
/// Not hdrhistogram: its buckets are linear within each power of two. These have the same width everywhere in a plot, and the
/// same bounds in every report, whether the values come from samples or from fio's bins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(BTreeMap<u32, u64>);

impl Buckets {
    /// Buckets from 1 ns to 10 ns, from 10 to 100, and so on: 7.5 % wide each.
    pub const PER_DECADE: u32 = 32;

    /// Adds `count` values of `ns`; 0 counts as 1.
    pub fn add(&mut self, ns: u64, count: u64) {
        let n = (ns.max(1) as f64).log10() * f64::from(Self::PER_DECADE);
        // Bounds are rounded; a value on a bound belongs to the bucket above it.
        let n = n as u32;
        let n = if Self::bound(n + 1) <= ns { n + 1 } else { n };
        *self.0.entry(n).or_default() += count;
    }

    /// The buckets that are not empty, in order: (lower bound in ns, count).
    pub fn list(&self) -> Vec<(u64, u64)> {
        let mut list: Vec<(u64, u64)> = Vec::new();
        for (&n, &count) in self.0.iter().filter(|&(_, &count)| count > 0) {
            // Below 10 ns several buckets have the same bound.
            match list.last_mut() {
                Some((ns, sum)) if *ns == Self::bound(n) => *sum += count,
                _ => list.push((Self::bound(n), count)),
            }
        }
        list
    }

    /// The lower bound of bucket `n`, in ns.
    pub fn bound(n: u32) -> u64 {
        10f64.powf(f64::from(n) / f64::from(Self::PER_DECADE)).round() as u64
    }

    /// The number of the bucket whose lower bound is `ns`.
    pub fn number(ns: u64) -> u32 {
        ((ns.max(1) as f64).log10() * f64::from(Self::PER_DECADE)).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_begins_at_or_below_it() {
        for ns in [1, 9, 10, 99, 100, 8_900, 30_999, 31_623, 1_000_000, 59_999_999_999] {
            let mut buckets = Buckets::default();
            buckets.add(ns, 3);
            let [(bound, 3)] = buckets.list()[..] else { panic!("{ns}") };
            assert!(
                bound <= ns && ns < Buckets::bound(Buckets::number(bound) + 1).max(bound + 1),
                "{ns} in {bound}"
            );
        }
    }

    #[test]
    fn bounds_grow_and_know_their_numbers() {
        for n in 32..400 {
            assert!(Buckets::bound(n) < Buckets::bound(n + 1) || n < 64, "{n}");
            assert!(n < 64 || Buckets::number(Buckets::bound(n)) == n, "{n}");
        }
    }

    #[test]
    fn nothing_is_lost_and_the_order_is_that_of_the_values() {
        let mut buckets = Buckets::default();
        for ns in (0..5000).rev() {
            buckets.add(ns, 2);
        }
        let list = buckets.list();
        assert_eq!(list.iter().map(|(_, count)| count).sum::<u64>(), 10_000);
        assert!(list.is_sorted_by(|a, b| a.0 < b.0));
        assert!(Buckets::default().list().is_empty());
    }
}
