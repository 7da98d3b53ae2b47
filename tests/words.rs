//! One word for one thing: the words that were retired occur nowhere any more, and every document links each term of
//! docs/words.md where it uses it first. `UPDATE_DOCS=1 cargo test --test words` adds missing links.
//!
//! CHANGELOG.md may name retired words, and measurements keep the columns that they were taken with.

use std::fs;
use std::ops::Range;
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

/// Terms that are also ordinary words of our documents, or have a document of their own.
const NOT_LINKED: &[&str] = &["auto", "descriptor", "doorbell", "floor", "lab"];

/// The terms of docs/words.md, longest first, so that "posted interrupt" is found before "interrupt".
fn terms() -> Vec<String> {
    let text = include_str!("../docs/words.md");
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    let mut terms: Vec<_> = headings.filter(|term| !NOT_LINKED.contains(term)).map(str::to_string).collect();
    terms.sort_by_key(|term| std::cmp::Reverse(term.len()));
    terms
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(term: &str) -> String {
    let kept = term.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// The next `open`..`close` in `text` from `at` on, both included.
fn enclosed(text: &str, at: usize, open: &str, close: &str) -> Option<Range<usize>> {
    let begin = at + text[at..].find(open)?;
    let end = begin + open.len() + text[begin + open.len()..].find(close)? + close.len();
    Some(begin..end)
}

/// Replaces what is not prose by NULs: code, comments, headings, links. Returns the links' places and targets.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut prose, mut links) = (text.to_string(), Vec::new());
    let erase = |prose: &mut String, range: Range<usize>| {
        let nuls: String =
            prose[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { '\0' }).collect();
        prose.replace_range(range, &nuls);
    };
    for (open, close) in [("```", "\n```"), ("<!--", "-->"), ("`", "`")] {
        let mut at = 0;
        while let Some(range) = enclosed(&prose, at, open, close) {
            at = range.end;
            erase(&mut prose, range);
        }
    }
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') || line.starts_with("    ") {
            erase(&mut prose, at..at + line.len());
        }
        at += line.len();
    }
    let mut at = 0;
    while let Some(middle) = prose[at..].find("](").map(|found| at + found) {
        at = middle + 2;
        let (Some(begin), Some(end)) = (prose[..middle].rfind('['), prose[middle..].find(')')) else {
            continue;
        };
        let target = text[middle + 2..middle + end].to_string();
        links.push((begin, target));
        erase(&mut prose, begin..middle + end + 1);
    }
    (prose, links)
}

/// Where `prose` uses `term`: a word of its own, singular or plural.
fn uses(prose: &str, term: &str) -> Vec<Range<usize>> {
    let exact = term.chars().any(char::is_uppercase);
    let (text, term) = if exact {
        (prose.to_string(), term.into())
    } else {
        (prose.to_ascii_lowercase(), term.to_lowercase())
    };
    let inside = |c: char| c.is_alphanumeric() || "_-=/".contains(c);
    let found = text.match_indices(&term).filter_map(|(at, _)| {
        let rest = &text[at + term.len()..];
        let suffix = ["es", "s", "ed", ""]
            .into_iter()
            .find(|end| rest.strip_prefix(end).is_some_and(|rest| !rest.starts_with(inside)))?;
        let end = at + term.len() + suffix.len();
        // Not our words: the exit code of a program, the notification IPI of posted interrupts, the CPU's ring 3.
        let other = [" code", " status", " IPI", " 0", " 3"].iter().any(|next| text[end..].starts_with(next));
        (!text[..at].ends_with(inside) && !other).then_some(at..end)
    });
    found.collect()
}

/// `text` with a link at the first use of each term that has none, and those terms.
fn linked(text: &str, words: &str) -> (String, Vec<String>) {
    let (mut prose, links) = blank(text);
    let mut missing = Vec::new();
    for term in terms() {
        let target = format!("{words}#{}", anchor(&term));
        let places = uses(&prose, &term);
        let first_link = links.iter().filter(|(_, to)| *to == target).map(|(at, _)| *at).min();
        if let Some(first) = places.first().filter(|first| first_link.is_none_or(|link| link > first.start)) {
            missing.push((first.clone(), target, term.clone()));
        }
        // A shorter term is not looked for in a longer one.
        for place in places {
            prose.replace_range(place.clone(), &"\0".repeat(place.len()));
        }
    }
    missing.sort_by_key(|(place, ..)| std::cmp::Reverse(place.start));
    let mut text = text.to_string();
    for (place, target, _) in &missing {
        let link = format!("[{}]({target})", &text[place.clone()]);
        text.replace_range(place.clone(), &link);
    }
    (text, missing.into_iter().map(|(.., term)| term).collect())
}

#[test]
fn every_term_is_linked_where_a_document_uses_it_first() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    let folders =
        [("docs", "words.md"), ("docs/book", "../words.md"), ("guest-images/probe", "../../docs/words.md")];
    let mut documents =
        vec![(root.join("README.md"), "docs/words.md"), (root.join("SECURITY.md"), "docs/words.md")];
    documents.extend(
        folders.iter().flat_map(|(folder, words)| in_folder(folder).into_iter().map(|path| (path, *words))),
    );
    let mut wrong = Vec::new();
    for (path, words) in documents {
        if path.ends_with("words.md") || path.ends_with("SUMMARY.md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let (linked, missing) = linked(&text, words);
        if !missing.is_empty() && std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, linked).unwrap();
        } else if !missing.is_empty() {
            wrong.push(format!("{}: {}", path.display(), missing.join(", ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "terms without a link at their first use; UPDATE_DOCS=1 adds them:\n{}",
        wrong.join("\n")
    );
}
