//! What doorbell makes from its own flags: completions, manual pages, configuration files. Nothing is started.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn doorbell(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = doorbell(args);
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a program says to `input`; `None`: it is not installed.
fn through(program: &str, args: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no {program}");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    let script = printed(&["completions", "bash"]);
    let complete = |words: &str| {
        let (before, last) = words.rsplit_once(' ').unwrap();
        let previous = before.rsplit(' ').next().unwrap();
        let count = before.split(' ').count();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={count}; _doorbell doorbell '{last}' '{previous}'; echo \"${{COMPREPLY[@]}}\"\n"
        );
        through("bash", &["--norc", "-s"], &ask)
    };
    let Some(verbs) = complete("doorbell ru") else { return };
    assert_eq!(verbs.trim(), "run");
    assert_eq!(complete("doorbell run --ini").unwrap().trim(), "--initrd");
    assert_eq!(complete("doorbell run --on-reset re").unwrap().trim(), "restart");
    assert_eq!(complete("doorbell bench diff --ba").unwrap().trim(), "--base");
}

#[test]
fn other_shells_get_something_that_names_the_verbs() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("inspect"), "{shell}");
    }
    let wrong = doorbell(&["completions", "tcsh"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page_that_man_can_show() {
    let all = [&[][..], &["bench"], &["bench", "diff"], &["run"], &["guest"], &["vfio", "list"], &["man"]];
    for words in all {
        let page = printed(&[&["man"][..], words].concat());
        let name = [&["doorbell"][..], words].concat().join("-");
        assert!(page.contains(&format!(".TH {name} 1")), "{words:?}: {page}");
        assert!(
            page.contains(concat!("\"doorbell ", env!("CARGO_PKG_VERSION"))),
            "{words:?}: the version\n{page}"
        );
        let Some(shown) = through("groff", &["-man", "-Tutf8", "-P-cbou"], &page) else { return };
        assert!(shown.contains("SYNOPSIS") && shown.contains("OPTIONS"), "{shown}");
    }
    let wrong = doorbell(&["man", "bench", "dif"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("there is no command dif; use one of diff"));
}

#[test]
fn a_printed_configuration_is_one_that_run_takes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.toml");
    let flags = ["--kernel", "no such kernel", "--cpus", "2", "--disk", "backend=mem,size=1G", "--prefault"];
    let text = printed(&[&["run", "--print-config"][..], &flags].concat());
    assert!(
        text.contains("cpus = 2\n") && text.contains("disk = [\n    \"backend=mem,size=1G\",\n]\n"),
        "{text}"
    );
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(printed(&["run", "--config", file, "--print-config"]), text);
    let more = printed(&["guest", "--config", file, "--cpus", "3", "--print-config", "--", "true"]);
    assert_eq!(more, text.replace("cpus = 2", "cpus = 3"));
    // It is run: its kernel is looked for.
    let run = doorbell(&["run", "--config", file]);
    assert_eq!(run.status.code(), Some(4));
    assert!(String::from_utf8(run.stderr).unwrap().contains("no such kernel"));

    std::fs::write(file, "cpus = 2\nspeed = 9\n").unwrap();
    let wrong = doorbell(&["run", "--config", file]);
    assert_eq!(wrong.status.code(), Some(2));
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.contains(file) && message.contains("line 2: run has no flag --speed"), "{message}");
    assert_eq!(doorbell(&["run", "--config", "/no/such/file"]).status.code(), Some(4));
}
