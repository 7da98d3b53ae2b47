use std::collections::BTreeMap;

/// What was counted: `STEP.WHAT` and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl FromIterator<(String, u64)> for Counts {
    fn from_iter<T: IntoIterator<Item = (String, u64)>>(counts: T) -> Counts {
        Counts(counts.into_iter().collect())
    }
}

impl Extend<(String, u64)> for Counts {
    fn extend<T: IntoIterator<Item = (String, u64)>>(&mut self, counts: T) {
        self.0.extend(counts);
    }
}

impl Counts {
    /// The count of this name; `None`: it was not counted, which is not 0.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

/// Counts of lab lessons as `scripts/lesson` hands them over: one line each, `NUMBER STEP.WHAT COUNT`. Other lines are left
/// out, and so are those of other lessons than `number`.
pub fn read_counts(text: &str, number: usize) -> Counts {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let of = words.next()?.parse::<usize>().ok().filter(|of| *of == number);
        let (name, count) = (words.next()?, words.next()?.parse().ok()?);
        of.map(|_| (name.to_string(), count))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lessons_own_lines_are_read() {
        let text = "21 a.irqfd_wakeup 100\nnoise\n22 a.irqfd_wakeup 7\n21 a.ioeventfd_write none\n";
        let counts = read_counts(text, 21);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [("a.irqfd_wakeup", 100)]);
    }
}
