use super::super::model::Lesson;
use super::*;

const TEXT: &str = "\
title = 'T'\nchapter = 3\ntext = 't'\nexplanation = 'e'\n[[disk]]\n[[step]]\nname = 'a'\naction = 'read'
[[question]]\nask = 'how many?'\ncount = 'a.irqfd'\nanswer = 100\nwithin = 2
[[question]]\nask = 'which?'\nchoices = ['none', 'all']\nright = 2\nproof = ['a.irqfd >= 98', 'a.intx == 0']
";

fn counts(irqfd: u64, intx: u64) -> Counts {
    [("a.irqfd".to_string(), irqfd), ("a.intx".to_string(), intx)].into_iter().collect()
}

#[test]
fn the_counts_decide_and_not_the_file() {
    let lesson = Lesson::parse(1, "test", TEXT).unwrap();
    let right = |question: usize, said, counts: &Counts| {
        mark(&lesson.questions[question], said, counts).unwrap().right
    };
    assert!(right(0, 100, &counts(99, 0)) && !right(0, 96, &counts(99, 0)));
    assert!(right(0, 50, &counts(50, 0)), "what was counted is right, whatever was expected");
    assert!(right(1, 2, &counts(100, 0)) && !right(1, 1, &counts(100, 0)));
    assert!(mark(&lesson.questions[0], 1, &Counts::default()).is_err());
}

#[test]
fn a_lesson_that_the_counts_contradict_is_noticed() {
    let lesson = Lesson::parse(1, "test", TEXT).unwrap();
    assert_eq!(check(&lesson, &counts(101, 0)), [""; 0]);
    assert_eq!(check(&lesson, &counts(97, 0)).len(), 2);
    assert_eq!(check(&lesson, &counts(100, 1)), ["a.intx == 0 is false: a.intx = 1"]);
    assert_eq!(check(&lesson, &Counts::default()).len(), 3);
}
