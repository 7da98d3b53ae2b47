/// The candidate that the user probably meant by `word`: the one with the fewest typing errors between them, if these
/// are at most a third of its letters; or one that begins with `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distance = |candidate: &str| {
        if word.len() >= 2 && candidate.starts_with(&word) { 0 } else { errors_between(&word, candidate) }
    };
    let (errors, found) =
        candidates.into_iter().map(|c| (distance(c), c)).min_by_key(|&(errors, _)| errors)?;
    (errors <= (found.len() / 3).max(1)).then_some(found)
}

/// The number of letters left out, added, replaced or swapped with their neighbour (optimal string alignment distance).
fn errors_between(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let changed = usize::from(from[i - 1] != to[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}
