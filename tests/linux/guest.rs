//! `doorbell guest` and `doorbell run --fio`, as they are typed: a command's output and exit code come out as they are.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use crate::need_machine;
use crate::support::{disks, ground};

/// doorbell with these arguments; its standard input is not a terminal. In the lab a guest may be lost for reasons of the
/// emulation (docs/lab.md): it then has written nothing, and is started once more.
fn doorbell(args: &[&str]) -> Output {
    for attempt in 1.. {
        let mut command = Command::new(ground::doorbell());
        command.args(args).env("DOORBELL_GUEST", ground::guest_directory()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("doorbell cannot be started");
        let (pid, (sender, output)) = (child.id(), channel());
        let waits = thread::spawn(move || sender.send(child.wait_with_output()));
        if let Ok(output) = output.recv_timeout(ground::deadline(30)) {
            return output.expect("its output");
        }
        // SAFETY: a signal to our child, which nobody has waited for: the thread would have answered.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        let _ = waits.join();
        let output = output.recv().expect("it was waited for").expect("its output");
        let lost = ground::in_lab() && output.stdout.is_empty() && attempt == 1;
        assert!(lost, "{args:?} passed its deadline\n{}{}", text(&output.stdout), text(&output.stderr));
        println!("lost run: {args:?} wrote nothing before its deadline; started again, 1 of 1");
    }
    unreachable!()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_in_the_guest_has_its_output_and_its_exit_code() {
    need_machine!();
    let script = r#"printf 'a  b\n%s\n' "$0"; echo to stderr >&2; nproc; pwd; cat; exit 42"#;
    let output = doorbell(&["guest", "--", "sh", "-c", script, "it's"]);
    assert_eq!(text(&output.stdout), "a  b\nit's\nto stderr\n1\n/root\n", "{}", text(&output.stderr));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(42), String::new()));
}

#[test]
fn append_adds_to_the_kernel_command_line() {
    need_machine!();
    let output = doorbell(&["guest", "--append", "its.own=1", "--", "cat", "/proc/cmdline"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert!(line.starts_with("console=ttyS0 quiet") && line.contains(" its.own=1"), "{line}");
}

#[test]
fn a_command_that_is_not_there_or_is_killed_ends_as_in_a_shell() {
    need_machine!();
    let output = doorbell(&["guest", "--", "no-such-command"]);
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no-such-command"), "{}", text(&output.stdout));
    let output = doorbell(&["guest", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stdout));
}

#[test]
fn a_guest_that_ends_before_its_command_did_is_a_failure() {
    need_machine!();
    let output = doorbell(&["guest", "--", "poweroff", "-f"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr), "doorbell: the guest ended before the command did\n");
}

#[test]
fn a_job_file_runs_section_by_section_and_fio_prints() {
    need_machine!();
    let files = disks::directory();
    let at = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(
        at("my.fio"),
        "[global]\nioengine=libaio\ndirect=1\nfilename=/dev/sda\nsize=1m\n\n[fill]\nrw=write\nbs=64k\nverify=crc32c\n\n[mixed]\nrw=randrw\nbs=4k\niodepth=8\n",
    )
    .expect("a job file");
    disks::file(std::path::Path::new(&at("image")), 4 << 20);
    let disk = format!("path={},serial=mine", at("image"));
    let output = doorbell(&["run", "--fio", &at("my.fio"), "--disk", &disk, "--stats", &at("stats")]);
    let console = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{console}\n{}", text(&output.stderr));
    let place = |what: &str| console.find(what).unwrap_or_else(|| panic!("no {what} in {console}"));
    assert!(place("fill: (groupid=0") < place("mixed: (groupid=0"), "{console}");
    assert!(std::fs::read(at("image")).expect("image")[..1 << 20].iter().any(|&byte| byte != 0));
    let stats = std::fs::read_to_string(at("stats")).expect("stats");
    assert!(stats.contains("\"mine\""), "{stats}");
}

#[test]
fn a_job_of_fio_that_fails_gives_its_exit_code_and_message() {
    need_machine!();
    let files = disks::directory();
    let job = files.path().join("bad.fio").display().to_string();
    std::fs::write(&job, "[a]\nrw=sideways\n").expect("a job file");
    // In memory, as nothing else is asked for.
    let output = doorbell(&["run", "--fio", &job]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("sideways"), "{}", text(&output.stdout));
}
