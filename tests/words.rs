//! One word for one thing: the words that were retired occur nowhere any more.
//!
//! CHANGELOG.md may name them, and measurements keep the columns that they were taken with.

use std::fs;
use std::path::{Path, PathBuf};

/// Retired words, lower case, each with the word to use. A space at an end stands for a word's boundary.
const RETIRED: &[(&str, &str)] = &[
    ("ring-back", "interrupt"),
    (" ring back ", "interrupt"),
    ("rings back", "interrupts"),
    ("rang back", "interrupted"),
    (" rung ", "kicked, or sent"),
    ("give_back", "push_used, rebind_driver"),
    ("fn gather", "collect"),
    (" obey", "handle_control"),
    (" wish ", "threshold, request"),
    (" wishes ", "thresholds, requests"),
    ("patience", "WaitMode, TIMEOUT"),
    ("stamper", "Tracer"),
    ("stamping", "Tracer"),
    ("nostamps", "NoTracer"),
    ("interruptlines", "DeviceInterrupts"),
    ("notabdf", "InvalidBdf"),
    ("passedconfig", "PassthroughConfig"),
    ("peersubject", "PeerVariant"),
    ("undertaker", "cleanup process"),
    ("farewell", "ExitMessage"),
    ("told_apart", "distinguishable"),
    (" hinders ", "blocks_binding"),
    (" complain", "warn"),
    ("cannot be had", "what failed, and why"),
    ("could not be had", "what failed, and why"),
];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            files(&entry.path(), found);
        }
    } else if !path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("2026-")) {
        found.push(path.to_path_buf());
    }
}

/// `text` in lower case, every run of other characters than letters, digits, `_` and `-` as one space.
fn words(text: &str) -> String {
    let kept =
        |c: char| if c.is_alphanumeric() || c == '_' || c == '-' { c.to_ascii_lowercase() } else { ' ' };
    let text: String = text.chars().map(kept).collect();
    format!(" {} ", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn retired_words_do_not_come_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for place in
        ["src", "tests", "benches", "scripts", "guest-images", "docs", "lessons", "build.rs", "README.md"]
    {
        files(&root.join(place), &mut all);
    }
    for place in ["CONTRIBUTING.md", "SECURITY.md"] {
        files(&root.join(place), &mut all);
    }
    let mut found = Vec::new();
    for path in all.iter().filter(|path| !path.ends_with("tests/words.rs")) {
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (n, line) in (1..).zip(text.lines()) {
            let line = words(line);
            for (retired, better) in RETIRED.iter().filter(|(retired, _)| line.contains(retired)) {
                let path = path.strip_prefix(root).unwrap().display();
                found.push(format!("{path}:{n}: \"{}\" is retired: {better}", retired.trim()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
