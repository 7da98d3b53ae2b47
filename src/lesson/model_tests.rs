use super::*;

const DISK: &str = "title = 'T'\nchapter = 3\ntext = 't'\nexplanation = 'e'\n[[disk]]\n[[step]]\nname = 'a'\naction = 'read'\n";

fn parse(rest: &str) -> Result<Lesson, String> {
    Lesson::parse(1, "test", &format!("{DISK}{rest}")).map_err(|error| error.to_string())
}

#[test]
fn a_question_asks_for_a_number_or_a_choice() {
    let number = "[[question]]\nask = 'q'\ncount = 'a.irqfd'\nanswer = 1\n";
    let choice = "[[question]]\nask = 'q'\nchoices = ['x', 'y']\nright = 2\nproof = ['a.irqfd == 1']\n";
    assert!(parse(number).is_ok() && parse(choice).is_ok());
    for wrong in [
        "",
        "[[question]]\nask = 'q'\n",
        "[[question]]\nask = 'q'\nchoices = ['x', 'y']\nright = 3\nproof = ['a.irqfd == 1']\n",
        "[[question]]\nask = 'q'\nchoices = ['x', 'y']\nright = 2\n",
        "[[question]]\nask = 'q'\ncount = 'b.irqfd'\nanswer = 1\n",
        "[[question]]\nask = 'q'\nchoices = ['x']\nright = 1\nproof = ['b.irqfd == 1']\n",
        "[[question]]\nask = 'q'\nchoices = ['x']\nright = 1\nproof = ['nonsense']\n",
        "[lab]\nsteps = []\n[[question]]\nask = 'q'\ncount = 'a.irqfd'\nanswer = 1\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
