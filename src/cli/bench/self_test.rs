//! `bench --self-test`: whether the verdicts told a path from itself.

use super::Failure;
use crate::bench::tells_apart;

/// What these verdicts mean, in words.
pub(super) fn result(verdicts: &[&str]) -> Result<String, Failure> {
    let all = verdicts.len();
    let few = verdicts.iter().filter(|verdict| verdict.contains("too few rounds")).count();
    let fail = |message| Err(Failure { code: 1, message: format!("self-test: {message}") });
    match (verdicts.iter().filter(|verdict| tells_apart(verdict)).count(), few) {
        (0, 0) if all > 0 => Ok(format!("none of {all} verdicts tells a path from itself")),
        (0, few) => fail(format!("{few} of {all} verdicts have too few rounds: give more --rounds")),
        (wrong, _) => fail(format!("{wrong} of {all} verdicts tell a path from itself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Row, fill_ratios};

    const EQUAL: &str = "no difference shown (1.01, 95 % 0.98 to 1.04); a difference of 5 % would have shown";

    #[test]
    fn only_verdicts_that_could_be_wrong_and_are_not_pass() {
        let message = |verdicts: &[&str]| match result(verdicts) {
            Ok(text) => text,
            Err(failure) => {
                assert_eq!(failure.code, 1);
                failure.message
            }
        };
        assert_eq!(message(&[EQUAL, EQUAL]), "none of 2 verdicts tells a path from itself");
        let wrong = "self-test: 1 of 2 verdicts tell a path from itself";
        assert_eq!(message(&[EQUAL, "1.020 x faster (1.010 to 1.030)"]), wrong);
        assert_eq!(message(&["2.6 x slower (2.4 to 2.8)", EQUAL]), wrong);
        assert!(message(&["too few rounds: 6, and 3 comparisons need 8"]).contains("give more --rounds"));
        assert!(result(&[]).is_err(), "nothing was compared");
        // The words are those of real verdicts.
        let row = |iops| Row { depth: Some(32), round_iops: vec![Some(iops); 8], ..Row::default() };
        let mut rows = [row(1.0), row(2.0)];
        fill_ratios(&mut rows);
        assert!(message(&[rows[1].verdict.as_deref().unwrap()]).contains("1 of 1"), "{rows:?}");
    }
}
