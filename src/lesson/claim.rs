use std::fmt;
use std::str::FromStr;

use super::counts::Counts;

/// A statement about counts: `a.irqfd == 100`, `4 * a.batches <= b.batches`. Both sides are a number, a count, or a number
/// times a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    text: String,
    left: Term,
    relation: Relation,
    right: Term,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    factor: u64,
    /// `None`: the factor alone.
    count: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    AtMost,
    AtLeast,
    Below,
    Above,
}

/// Why a claim cannot be read or checked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimError {
    /// Not a claim.
    #[error("{0:?} is not a claim: write it as in `a.irqfd == 100`, with ==, <=, >=, < or >")]
    Form(String),
    /// Nothing of this name was counted.
    #[error("nothing was counted under the name {0:?}")]
    Unknown(String),
}

const RELATIONS: [(&str, Relation); 5] = [
    ("==", Relation::Equal),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Below),
    (">", Relation::Above),
];

impl Term {
    fn parse(text: &str) -> Option<Term> {
        let (factor, count) = match text.split_once('*') {
            Some((factor, count)) => (factor.trim().parse().ok()?, Some(count.trim())),
            None => match text.trim().parse() {
                Ok(number) => (number, None),
                Err(_) => (1, Some(text.trim())),
            },
        };
        let named = count.is_none_or(|name| !name.is_empty() && !name.contains(char::is_whitespace));
        named.then(|| Term { factor, count: count.map(String::from) })
    }

    fn value(&self, counts: &Counts) -> Result<u64, ClaimError> {
        let Some(name) = &self.count else { return Ok(self.factor) };
        let count = counts.get(name).ok_or_else(|| ClaimError::Unknown(name.clone()))?;
        Ok(count.saturating_mul(self.factor))
    }
}

impl FromStr for Claim {
    type Err = ClaimError;

    fn from_str(text: &str) -> Result<Claim, ClaimError> {
        let parse = || {
            // The longer signs first: `<=` begins like `<`.
            let (sign, relation) = RELATIONS.iter().find(|(sign, _)| text.contains(sign))?;
            let (left, right) = text.split_once(sign)?;
            let (left, right) = (Term::parse(left)?, Term::parse(right)?);
            Some(Claim { text: text.into(), left, relation: *relation, right })
        };
        parse().ok_or_else(|| ClaimError::Form(text.into()))
    }
}

impl TryFrom<String> for Claim {
    type Error = ClaimError;

    fn try_from(text: String) -> Result<Claim, ClaimError> {
        text.parse()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Claim {
    /// Whether it is true of `counts`.
    ///
    /// # Errors
    /// [`ClaimError::Unknown`]: a count that it names is missing.
    pub fn holds(&self, counts: &Counts) -> Result<bool, ClaimError> {
        let (left, right) = (self.left.value(counts)?, self.right.value(counts)?);
        Ok(match self.relation {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
            Relation::AtLeast => left >= right,
            Relation::Below => left < right,
            Relation::Above => left > right,
        })
    }

    /// The names of the counts in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.left, &self.right].into_iter().filter_map(|term| term.count.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_compare_counts_and_refuse_what_was_not_counted() {
        let counts = Counts::from_iter([("a.irqfd".to_string(), 100), ("b.irqfd".to_string(), 25)]);
        let holds = |text: &str| text.parse::<Claim>()?.holds(&counts);
        for text in ["a.irqfd == 100", "4*b.irqfd == a.irqfd", "a.irqfd>=100", "b.irqfd < 26", "99 < a.irqfd"]
        {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        for text in ["a.irqfd <= 99", "a.irqfd > 100", "3 * b.irqfd >= 100"] {
            assert_eq!(holds(text), Ok(false), "{text}");
        }
        assert_eq!(holds("c.irqfd == 1"), Err(ClaimError::Unknown("c.irqfd".into())));
        for text in ["", "a.irqfd", "a.irqfd = 1", "x * a.irqfd == 1", "a b == 1", "== 3"] {
            assert_eq!(holds(text), Err(ClaimError::Form(text.into())), "{text}");
        }
    }
}
