use super::model::{Lesson, LessonError};

macro_rules! lesson_file {
    ($name:literal) => {
        (concat!("lessons/", $name, ".toml"), include_str!(concat!("../../lessons/", $name, ".toml")))
    };
}

/// The files, in the order of the lessons.
const FILES: &[(&str, &str)] = &[
    lesson_file!("exit"),
    lesson_file!("ioeventfd-instead"),
    lesson_file!("which-thread"),
    lesson_file!("one-batch"),
    lesson_file!("driver-looks"),
    lesson_file!("flags-instead"),
    lesson_file!("empty-kicks"),
    lesson_file!("bad-head"),
    lesson_file!("fast-mmio"),
    lesson_file!("datamatch"),
    lesson_file!("port"),
    lesson_file!("moved-bar"),
    lesson_file!("kernel-kick"),
    lesson_file!("kernel-exit"),
    lesson_file!("line"),
    lesson_file!("resample"),
    lesson_file!("message"),
    lesson_file!("kernel-irqfd"),
    lesson_file!("kernel-message"),
    lesson_file!("kernel-line"),
    lesson_file!("masked"),
    lesson_file!("moved-vector"),
    lesson_file!("kernel-move"),
    lesson_file!("kernel-vfio"),
    lesson_file!("kernel-bypass"),
    lesson_file!("polling"),
    lesson_file!("moderation"),
    lesson_file!("holding-one"),
];

/// Every lesson, in order.
///
/// # Errors
/// A built-in file is not a lesson; the tests exclude that.
pub fn all() -> Result<Vec<Lesson>, LessonError> {
    (1..).zip(FILES).map(|(number, (file, text))| Lesson::parse(number, file, text)).collect()
}

/// Lesson `number`, from 1.
///
/// # Errors
/// There is none.
pub fn lesson(number: usize) -> Result<Lesson, LessonError> {
    let last = FILES.len();
    let found = number.checked_sub(1).and_then(|place| FILES.get(place));
    found
        .ok_or(LessonError::Number { number, last })
        .and_then(|(file, text)| Lesson::parse(number, file, text))
}

#[cfg(test)]
#[path = "all_tests.rs"]
mod tests;
