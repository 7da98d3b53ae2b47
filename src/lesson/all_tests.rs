use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

#[test]
fn every_lesson_can_be_read_and_none_is_forgotten() {
    let lessons = all().unwrap_or_else(|error| panic!("{error}"));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("lessons");
    let there = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let there: BTreeSet<_> = there.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert_eq!(there.len(), FILES.len(), "a file of lessons/ is missing in FILES, or the other way round");
    let titles: BTreeSet<_> = lessons.iter().map(|lesson| &lesson.title).collect();
    assert_eq!(titles.len(), lessons.len(), "progress is kept by title, so each occurs once");
    let chapters: Vec<_> = lessons.iter().map(|lesson| lesson.chapter).collect();
    assert!(chapters.is_sorted() && chapters.iter().all(|chapter| (1..=8).contains(chapter)), "{chapters:?}");
}

#[test]
fn lessons_are_numbered_from_one() {
    assert_eq!(lesson(1).unwrap().number, 1);
    for number in [0, FILES.len() + 1] {
        assert!(matches!(lesson(number), Err(LessonError::Number { .. })), "{number}");
    }
}

/// What each lesson says is so, on this host's KVM.
#[test]
fn every_probe_lesson_is_what_is_counted() {
    if let Err(error) = crate::machine::open_kvm() {
        println!("skipped: /dev/kvm: {error}");
        return;
    }
    for lesson in all().unwrap().iter().filter(|lesson| lesson.lab.is_none()) {
        let counts = super::super::play(lesson).unwrap_or_else(|error| panic!("{error}"));
        let wrong = super::super::check(lesson, &counts);
        assert!(wrong.is_empty(), "lesson {} ({}): {}", lesson.number, lesson.title, wrong.join("; "));
    }
}
