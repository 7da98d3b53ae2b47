//! doorbell broken on purpose: what the reader sees of each, from the head of its patch.

use super::LessonError;

macro_rules! patch_files {
    ($($name:literal),+ $(,)?) => {
        &[$(include_str!(concat!("../../lessons/broken/", $name, ".patch"))),+]
    };
}

/// The patches, in order.
const PATCHES: &[&str] =
    patch_files!["1-no-fence", "2-used-event", "3-irqfd-before-route", "4-no-resample", "5-bar-not-followed"];

/// One way in which doorbell is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// From 1.
    pub number: usize,
    /// Its title.
    pub title: &'static str,
    /// The chapter of the book that explains what was broken.
    pub chapter: &'static str,
    /// What a user sees of it.
    pub symptom: &'static str,
    /// What to think about.
    pub look: &'static str,
}

/// All of them, in order.
pub fn all_broken() -> Vec<Broken> {
    let one = |(number, patch): (usize, &&'static str)| {
        // The patch itself, which would tell, is left out.
        let head = patch.split("\n--- ").next().unwrap_or_default();
        let fact = |key: &str| {
            let value = |line: &'static str| line.strip_prefix(key)?.strip_prefix(": ");
            head.lines().find_map(value).unwrap_or_default()
        };
        Broken {
            number,
            title: fact("title"),
            chapter: fact("chapter"),
            symptom: fact("symptom"),
            look: fact("look"),
        }
    };
    (1..).zip(PATCHES).map(one).collect()
}

/// Broken doorbell `number`, from 1.
///
/// # Errors
/// There is none.
pub fn broken(number: usize) -> Result<Broken, LessonError> {
    let found = all_broken().into_iter().find(|one| one.number == number);
    found.ok_or(LessonError::Broken { number, last: PATCHES.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_says_what_is_seen_and_none_tells_the_answer() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/lessons/broken")).unwrap();
        assert_eq!(files.count(), all_broken().len(), "each file of lessons/broken is built in");
        for one in all_broken() {
            for text in [one.title, one.chapter, one.symptom, one.look] {
                assert!(!text.is_empty() && !text.contains('\n'), "{one:?}");
            }
            assert_eq!(broken(one.number).unwrap(), one);
        }
        assert!(matches!(broken(0), Err(LessonError::Broken { number: 0, .. })));
    }
}
