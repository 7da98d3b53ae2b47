//! Disks that between them have every pair of options: far fewer than all combinations, and faults that need two
//! options to meet are found.

use std::collections::HashSet;

use doorbell::backend::BackendKind;
use doorbell::dataplane::CompletePath;
use doorbell::virtio::NotifyPath;

/// A key of `--disk` with its values.
type Factor = (&'static str, Vec<&'static str>);

fn factors() -> Vec<Factor> {
    fn names<T>(named: &[(&'static str, T)]) -> Vec<&'static str> {
        named.iter().map(|(name, _)| *name).collect()
    }
    // `null` stores nothing.
    let stores = names(&BackendKind::NAMES).into_iter().filter(|&name| name != "null").collect();
    vec![
        ("complete", names(&CompletePath::NAMES)),
        ("notify", names(&NotifyPath::NAMES)),
        ("backend", stores),
        ("iothread", vec!["auto", "0", "none"]),
        ("queues", vec!["1", "4"]),
        ("ring", vec!["split", "packed"]),
        ("event-idx", vec!["on", "off"]),
        ("direct", vec!["off", "on"]),
    ]
}

/// One disk's options: a value (its index) per factor.
type Row = Vec<usize>;
/// Two values that meet: (factor, value) twice.
type Pair = ((usize, usize), (usize, usize));

/// The options of one disk.
#[derive(Clone, Debug)]
pub struct Options(Vec<(&'static str, &'static str)>);

impl Options {
    pub fn get(&self, key: &str) -> &'static str {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| *value).expect("it is a factor")
    }

    /// As a `--disk` has them. `mem` reads no file, so to it `direct` may not be said.
    pub fn text(&self) -> String {
        let said = self.0.iter().filter(|(key, _)| *key != "direct" || self.get("backend") != "mem");
        said.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

/// Every pair of values meets in at least one of these; the same ones each time.
pub fn disks() -> Vec<Options> {
    let factors = factors();
    let mut missing = all_pairs(&factors);
    let mut rows = Vec::new();
    while let Some(&seed) = missing.iter().min() {
        let row = row_around(seed, &factors, &missing);
        missing.retain(|pair| !meets(&row, pair));
        rows.push(row);
    }
    let named =
        |row: Row| row.iter().zip(&factors).map(|(&value, (key, values))| (*key, values[value])).collect();
    rows.into_iter().map(|row| Options(named(row))).collect()
}

fn all_pairs(factors: &[Factor]) -> HashSet<Pair> {
    let mut pairs = HashSet::new();
    for (a, (_, of_a)) in factors.iter().enumerate() {
        for (b, (_, of_b)) in factors.iter().enumerate().skip(a + 1) {
            pairs.extend((0..of_a.len()).flat_map(|x| (0..of_b.len()).map(move |y| ((a, x), (b, y)))));
        }
    }
    pairs
}

fn meets(row: &[usize], &((a, x), (b, y)): &Pair) -> bool {
    row[a] == x && row[b] == y
}

/// A row with the pair `seed`; the other values one by one, each the one that makes the most missing pairs.
fn row_around(seed: Pair, factors: &[Factor], missing: &HashSet<Pair>) -> Row {
    let mut chosen: Vec<Option<usize>> = vec![None; factors.len()];
    chosen[seed.0.0] = Some(seed.0.1);
    chosen[seed.1.0] = Some(seed.1.1);
    for factor in 0..factors.len() {
        if chosen[factor].is_some() {
            continue;
        }
        let gain = |value: usize| {
            let others = chosen.iter().enumerate().filter_map(|(other, v)| Some((other, (*v)?)));
            let pairs = others.map(|other| ((factor, value).min(other), (factor, value).max(other)));
            pairs.filter(|pair| missing.contains(pair)).count()
        };
        let values = 0..factors[factor].1.len();
        chosen[factor] = values.rev().max_by_key(|&value| gain(value));
    }
    chosen.into_iter().map(Option::unwrap_or_default).collect()
}

#[test]
fn every_pair_of_options_meets_in_some_disk() {
    let disks = disks();
    let factors = factors();
    for (a, (key, values)) in factors.iter().enumerate() {
        for (other, others) in &factors[a + 1..] {
            for (value, with) in values.iter().flat_map(|v| others.iter().map(move |w| (v, w))) {
                let met = disks.iter().any(|disk| disk.get(key) == *value && disk.get(other) == *with);
                assert!(met, "{key}={value} never meets {other}={with}");
            }
        }
    }
    assert!(disks.len() <= 24, "{} disks: more than one guest can have", disks.len());
}
