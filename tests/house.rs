//! The house keeps its order: no import runs upwards, no two files import each other in a circle, no file grows too long.
//!
//! The floors are the table in `src/lib.rs`; this test reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, iter};

const MAX_LINES: usize = 350;

/// A source file: its module path (`dataplane::ring`), and its text without comments and tests.
struct File {
    path: PathBuf,
    module: Vec<String>,
    code: String,
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|end| end == "rs") {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let shipped = |path: &PathBuf| {
        let text = path.to_string_lossy();
        !text.ends_with("_tests.rs") && !text.contains("/testing") && !text.ends_with("/tests.rs")
    };
    let file = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Vec<String> =
            relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|name| name == "mod" || name == "lib") {
            module.pop();
        }
        let text = fs::read_to_string(&path).unwrap();
        let kept = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or("");
        let lines = kept.lines().filter(|line| !line.trim_start().starts_with("//"));
        File { path, module, code: lines.flat_map(|line| [line, "\n"]).collect() }
    };
    sources(&root).into_iter().filter(shipped).map(file).collect()
}

/// Every path that a `use` names, with the names in braces written out; `public`: of `pub use`, else of plain ones.
fn imports(code: &str, public: bool) -> Vec<Vec<String>> {
    let statements = code.split(';').filter_map(|statement| {
        let at = statement.rfind("use ").filter(|&at| at == 0 || statement[..at].ends_with([' ', '\n']))?;
        let is_public =
            statement[..at].trim_end().ends_with("pub") || statement[..at].trim_end().ends_with(')');
        (is_public == public).then_some(&statement[at + 4..])
    });
    statements.flat_map(|tree| expand(&tree.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn expand(tree: &str) -> Vec<Vec<String>> {
    let Some((before, inside)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or(tree);
        return vec![name.split("::").map(|part| part.trim().to_string()).collect()];
    };
    let inside = inside.trim_end().trim_end_matches('}');
    let prefix: Vec<String> =
        before.split("::").map(str::trim).filter(|p| !p.is_empty()).map(Into::into).collect();
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in inside.chars().chain(iter::once(',')) {
        match c {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                part.push(c);
            }
        }
    }
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(part.trim()))
        .map(|rest| prefix.iter().cloned().chain(rest.into_iter().filter(|name| name != "self")).collect())
        .collect()
}

/// `path`, as seen from `module`, from the crate's root on; `None` for other crates.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let kept = module.len().checked_sub(ups)?;
            Some([&module[..kept], &path[ups..]].concat())
        }
        _ => None,
    }
}

/// Where each name really is: the file that defines it, behind any `pub use`.
struct Index<'a> {
    modules: BTreeMap<Vec<String>, &'a File>,
    exports: BTreeMap<Vec<String>, Vec<String>>,
}

impl<'a> Index<'a> {
    fn new(files: &'a [File]) -> Index<'a> {
        let modules: BTreeMap<_, _> = files.iter().map(|file| (file.module.clone(), file)).collect();
        let mut exports = BTreeMap::new();
        for file in files {
            for path in imports(&file.code, true) {
                let child = [&file.module[..], &path[..]].concat();
                let inner = modules.contains_key(&child[..=file.module.len()]).then_some(child);
                let target = absolute(&file.module, &path).or(inner);
                if let (Some(target), Some(name)) = (target, path.last()) {
                    exports.insert([&file.module[..], std::slice::from_ref(name)].concat(), target);
                }
            }
        }
        Index { modules, exports }
    }

    fn file(&self, mut path: Vec<String>) -> Option<&'a File> {
        for _ in 0..8 {
            let known = (1..=path.len()).rev().find_map(|n| Some((n, self.exports.get(&path[..n])?.clone())));
            match known {
                Some((n, target)) if target != path[..n] => path = [&target[..], &path[n..]].concat(),
                _ => break,
            }
        }
        (0..=path.len()).rev().find_map(|n| self.modules.get(&path[..n]).copied())
    }
}

/// The rooms of lib.rs's table, from the ground floor up.
fn floors() -> BTreeMap<String, usize> {
    let text = include_str!("../src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" |"));
    let rows = rows.filter_map(|(floor, rest)| Some((floor.trim().parse::<usize>().ok()?, rest)));
    rows.flat_map(|(floor, rest)| {
        let rooms = rest.split('|').next().unwrap_or("");
        let names = rooms.split('`').skip(1).step_by(2);
        names.map(move |name| (name.trim_start_matches("mod@").to_string(), floor)).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn no_import_runs_upwards() {
    let (floors, files) = (floors(), files());
    assert!(floors.len() > 8, "{floors:?}");
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.module.first().is_some_and(|room| room != "main")) {
        let room = &file.module[0];
        let own = floors.get(room).unwrap_or_else(|| panic!("{room} has no floor in src/lib.rs"));
        for (at, _) in file.code.match_indices("crate::") {
            let used: String =
                file.code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let above = floors.get(&used).is_some_and(|floor| floor > own || floor == own && used != *room);
            if above {
                wrong.push(format!("{}: crate::{used}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports from a floor that is not below:\n{}", wrong.join("\n"));
}

/// Whatever `from` needs, directly or through others.
fn reachable<'a>(needs: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, from: &'a Path) -> BTreeSet<&'a Path> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(path) = left.pop() {
        left.extend(needs[path].iter().copied().filter(|needed| seen.insert(*needed)));
    }
    seen
}

#[test]
fn no_two_files_need_each_other() {
    let files = files();
    let index = Index::new(&files);
    let mut needs: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for file in &files {
        let paths = imports(&file.code, false).into_iter().filter_map(|path| absolute(&file.module, &path));
        let found = paths.filter_map(|path| index.file(path)).map(|needed| &*needed.path);
        needs.entry(&file.path).or_default().extend(found.filter(|needed| *needed != file.path));
    }
    let all: BTreeMap<&Path, BTreeSet<&Path>> =
        needs.keys().map(|path| (*path, reachable(&needs, path))).collect();
    let circle = |path: &Path| -> Vec<_> {
        all[path].iter().filter(|other| all[**other].contains(path)).map(|other| other.display()).collect()
    };
    let circles: BTreeSet<String> =
        needs.keys().map(|path| circle(path)).filter(|c| !c.is_empty()).map(|c| format!("{c:?}")).collect();
    assert!(circles.is_empty(), "files that need each other in a circle: {circles:#?}");
}

/// The files with one of `words` in them, apart from `but`.
fn users(words: &[&str], but: &[&str]) -> Vec<String> {
    let files = files();
    let others = files.iter().filter(|file| !but.iter().any(|path| file.path.ends_with(path)));
    let used = others.flat_map(|file| {
        let found = words.iter().filter(|word| file.code.contains(**word));
        found.map(|word| format!("{}: {word}", file.path.display())).collect::<Vec<_>>()
    });
    used.collect()
}

#[test]
fn messages_go_through_the_logger() {
    // A print panics when its file is full or closed, and waits when nobody reads: on a thread of the VM both are fatal.
    let prints = users(&["println!(", "print!(", "dbg!(", "io::stderr().write"], &[]);
    assert!(prints.is_empty(), "use host::log, or cli's print for results: {prints:#?}");
}

#[test]
fn every_thread_of_a_vm_is_watched() {
    let bench = ["bench/probe/floor.rs", "bench/probe/no_irqchip.rs", "bench/probe/session.rs"];
    let but = [&bench[..], &["host/thread.rs", "machine/vcpu.rs"]].concat();
    let threads = users(&["std::thread::spawn(", "Builder::new().name("], &but);
    assert!(threads.is_empty(), "use host::thread::spawn, so that somebody hears of a panic: {threads:#?}");
}

#[test]
fn no_file_is_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all =
        ["src", "tests", "benches", "guest-images/probe"].map(|directory| sources(&root.join(directory)));
    for path in all.concat() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines; split it at {MAX_LINES}", path.display());
    }
}
