//! How the program refuses: one sentence, and the documented exit code.

use std::process::Output;

/// Whether `output` ends with `code` and one line on stderr that has all `parts`.
#[track_caller]
pub fn tells(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
    println!("{}", text.trim());
}
