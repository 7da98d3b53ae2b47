//! The docs say where in the code something happens; this keeps them right. `UPDATE_DOCS=1` writes the lines anew.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a reference may begin.
fn next(text: &str) -> Option<usize> {
    ["src/", "tests/"].iter().filter_map(|room| text.find(room)).min()
}

/// Checks every `path:line `needle`` in `text`. Returns the text with right lines, or the references whose text is gone.
fn check(text: &str) -> Result<String, Vec<String>> {
    let (mut out, mut wrong) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = next(rest) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let reference = reference(from);
        let Some((path, line, needle, len)) = reference else {
            out.push_str(&from[..4]);
            rest = &from[4..];
            continue;
        };
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default();
        let found: Vec<usize> =
            (1..).zip(source.lines()).filter(|(_, l)| l.contains(needle)).map(|(n, _)| n).collect();
        // The nearest one, if there are several.
        match found.iter().min_by_key(|n| n.abs_diff(line)) {
            Some(right) => out.push_str(&format!("{path}:{right} `{needle}`")),
            None => {
                wrong.push(format!("{path} has no `{needle}`"));
                out.push_str(&from[..len]);
            }
        }
        rest = &from[len..];
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

/// Parses "src/a/b.rs:12 `needle`" at the start of `text`.
fn reference(text: &str) -> Option<(&str, usize, &str, usize)> {
    let colon = text.find(':')?;
    let path = &text[..colon];
    if !path.ends_with(".rs") || path.contains(char::is_whitespace) {
        return None;
    }
    let digits = text[colon + 1..].find(|c: char| !c.is_ascii_digit())?;
    let line = text[colon + 1..colon + 1 + digits].parse().ok()?;
    let quoted = text[colon + 1 + digits..].strip_prefix(" `")?;
    let end = quoted.find('`')?;
    Some((path, line, &quoted[..end], colon + 1 + digits + 2 + end + 1))
}

/// The Markdown files in `directory` and below.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| if path.is_dir() { pages(&path) } else { vec![path] };
    all.flat_map(of).filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

#[test]
fn every_line_that_the_docs_name_is_where_they_say() {
    let mut checked = 0;
    for path in pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")) {
        let text = fs::read_to_string(&path).unwrap();
        let right = check(&text).unwrap_or_else(|wrong| panic!("{}: {}", path.display(), wrong.join("; ")));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            if text != right {
                // Whole at once: the test of the links reads it meanwhile.
                let new = path.with_extension("new");
                fs::write(&new, &right).and_then(|()| fs::rename(&new, &path)).unwrap();
            }
        } else if let Some((old, new)) = text.lines().zip(right.lines()).find(|(old, new)| old != new) {
            panic!(
                "{}: stale line number; run UPDATE_DOCS=1 cargo test --test docs\n-{old}\n+{new}",
                path.display()
            );
        }
        checked += 1;
    }
    assert!(checked > 0, "docs are gone");
}

#[test]
fn a_reference_to_nothing_is_noticed() {
    assert!(check("see src/lib.rs:1 `no such thing here`").is_err());
    assert!(!check("see src/lib.rs:999 `pub mod kvm`").unwrap().contains(":999 "));
}

/// The names that a heading can be linked to by, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#').map(|l| l.trim_start_matches('#').trim()));
    let kept = |c: char| (c.is_alphanumeric() || "-_ ".contains(c)).then(|| c.to_ascii_lowercase());
    headings.map(|heading| heading.chars().filter_map(kept).collect::<String>().replace(' ', "-")).collect()
}

/// The targets of Markdown's links, without those that leave the repository and without what only looks like one in
/// code: text between backticks is every second part, in fences too.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split('`').step_by(2);
    let targets = prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in pages(&root.join("docs")).into_iter().chain([root.join("README.md")]) {
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(to.exists(), "{}: {link} leads nowhere", path.display());
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&to).unwrap());
                assert!(
                    there.iter().any(|a| a == anchor),
                    "{}: no heading for {link}: {there:?}",
                    path.display()
                );
            }
        }
    }
}
