use super::claim::ClaimError;
use super::counts::Counts;
use super::model::{Lesson, Question};

/// What became of one prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The prediction agrees with what was counted.
    pub right: bool,
    /// What was counted, as one sentence.
    pub counted: String,
}

/// Marks a prediction, a number or the number of a choice, by what was counted, not by what the lesson's file says.
///
/// # Errors
/// A count is missing.
pub fn mark(question: &Question, said: u64, counts: &Counts) -> Result<Mark, ClaimError> {
    if let Some(name) = &question.count {
        let count = counts.get(name).ok_or_else(|| ClaimError::Unknown(name.clone()))?;
        let right = said.abs_diff(count) <= question.within;
        return Ok(Mark { right, counted: format!("{name} = {count}") });
    }
    let names: Vec<_> = question.proof.iter().flat_map(|claim| claim.0.names()).collect();
    let mut shown: Vec<String> = Vec::new();
    for name in names {
        let count = counts.get(name).ok_or_else(|| ClaimError::Unknown(name.into()))?;
        let text = format!("{name} = {count}");
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    Ok(Mark { right: usize::try_from(said).ok() == question.right, counted: shown.join(", ") })
}

/// Returns the statements of a lesson that the counts contradict.
pub fn check(lesson: &Lesson, counts: &Counts) -> Vec<String> {
    let wrong = |question: &Question| -> Vec<String> {
        let number = question.count.iter().filter_map(|name| {
            let answer = question.answer.unwrap_or_default();
            match counts.get(name) {
                None => Some(format!("{name} was not counted")),
                Some(count) if count.abs_diff(answer) > question.within => {
                    Some(format!("{name} is {count}, not {answer} (within {})", question.within))
                }
                Some(_) => None,
            }
        });
        let proof = question.proof.iter().filter_map(|claim| match claim.0.holds(counts) {
            Ok(true) => None,
            Ok(false) => {
                let found =
                    claim.0.names().filter_map(|name| Some(format!("{name} = {}", counts.get(name)?)));
                Some(format!("{} is false: {}", claim.0, found.collect::<Vec<_>>().join(", ")))
            }
            Err(error) => Some(error.to_string()),
        });
        number.chain(proof).collect()
    };
    lesson.questions.iter().flat_map(wrong).collect()
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
