//! Lessons that mark themselves: a VM, an action, a question about what will be counted, and the count.
//!
//! What lives here: lessons as data (the files in lessons/), running one on the probe guest, comparing a prediction with
//! what was counted, and which lessons a reader has done. What may not: the terminal.
//!
//! | file | what |
//! |---|---|
//! | `model` | a lesson as its TOML file has it |
//! | `all` | the lessons, built in, in order |
//! | `broken` | the patches of lessons/broken, as the reader sees them |
//! | `claim` | a statement about counts, such as `a.irqfd == 100` |
//! | `counts` | what was counted in each step |
//! | `play` | runs the steps in the probe guest |
//! | `steps` | one step as a job for the probe |
//! | `mark` | compares an answer with the counts |
//! | `progress` | the reader's state file |

mod all;
mod broken;
mod claim;
mod counts;
mod mark;
mod model;
mod play;
mod progress;
mod steps;

pub use all::{all, lesson};
pub use broken::{Broken, all_broken, broken};
pub use claim::{Claim, ClaimError};
pub use counts::{Counts, read_counts};
pub use mark::{Mark, check, mark};
pub use model::{Action, Disk, Lab, LabStep, Lesson, LessonError, Question, Step, Waiting};
pub use play::{PlayError, play};
pub use progress::{Progress, ProgressError};
