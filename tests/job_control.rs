//! doorbell as a job of a shell: in the background, stopped, brought back, ended at each point.

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{echo, elf};
use pty::{Session, mode};

/// An interactive shell, and the kernel of the guest that it is to run.
struct Shell {
    session: Session,
    kernel: tempfile::NamedTempFile,
}

/// Waits until `done`; the deadline is for machines that are busy with something else.
fn wait_until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fields of /proc/PID/stat behind the name: state, parent.
fn stat(pid: i32) -> Option<(String, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.into(), fields.next()?.parse().ok()?))
}

fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == "T")
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

impl Shell {
    fn start() -> Option<Shell> {
        let why = match (doorbell::machine::open_kvm(), Command::new("bash").arg("--version").output()) {
            (Err(error), _) => error.to_string(),
            (_, Err(error)) => format!("bash: {error}"),
            _ => {
                let mut bash = Command::new("bash");
                bash.args(["--norc", "--noprofile", "--noediting", "-i"])
                    .env("PS1", "$ ")
                    .env_remove("HISTFILE");
                let mut kernel = tempfile::NamedTempFile::new().unwrap();
                kernel.write_all(&elf(&echo())).unwrap();
                let mut session = Session::start(bash);
                session.skip_to(b"$ ");
                return Some(Shell { session, kernel });
            }
        };
        eprintln!("skipped: {why}");
        None
    }

    /// Types a command that runs the guest, and waits for the guest's first byte; returns doorbell's process ID.
    fn run(&mut self, background: bool) -> i32 {
        let kernel = self.kernel.path().display().to_string();
        let command = format!(
            "{} run --memory 128M --kernel {kernel}{}\n",
            env!("CARGO_BIN_EXE_doorbell"),
            if background { " &" } else { "" }
        );
        self.session.send(command.as_bytes());
        // The echo of what was typed has an R too.
        self.session.skip_to(if background { b" &" } else { kernel.as_bytes() });
        self.session.skip_to(b"R");
        let shell = self.session.child.id() as i32;
        let child = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            pids.find(|&pid| stat(pid).is_some_and(|(_, parent)| parent == shell))
        };
        wait_until("a child of the shell", child)
    }

    /// Has the shell do `command`, and waits until it has read it.
    fn say(&mut self, command: &str) {
        self.session.send(format!("{command}; echo do''ne\n").as_bytes());
        self.session.skip_to(b"done");
    }

    fn is_raw(&self) -> bool {
        mode(&self.session.slave).c_lflag & (libc::ICANON | libc::ISIG | libc::ECHO) == 0
    }

    /// The job has the terminal: keys reach the guest, Ctrl-C too.
    fn works_in_the_foreground(&mut self) {
        wait_until("raw mode", || self.is_raw().then_some(()));
        self.session.send(b"a\x03b");
        self.session.skip_to(b"a\x03b");
    }

    /// The job has ended with `code`, and the shell has a terminal that works.
    fn is_over(&mut self, pid: i32, code: i32) {
        wait_until("the end of the job", || stat(pid).is_none().then_some(()));
        // The shell has the code of a job in the foreground at once, that of others when it waits for them.
        self.session
            .send(format!("c=$?; wait {pid} 2>&-; w=$?; test $w = 127 || c=$w; echo code=$c.\n").as_bytes());
        // The echo of what was typed has another character there.
        self.session.skip_to(format!("code={code}.").as_bytes());
        self.session.skip_to(b"$ ");
        let mode = mode(&self.session.slave);
        assert_eq!(mode.c_lflag, self.session.before.c_lflag, "the terminal is not as it was");
    }
}

#[test]
fn a_job_in_the_background_runs_leaves_the_terminal_alone_and_ends() {
    let Some(mut shell) = Shell::start() else { return };
    let job = shell.run(true);
    // Whoever reads a terminal from the background is stopped, with all threads.
    shell.say("true");
    assert!(!is_stopped(job) && !shell.is_raw());
    signal(job, libc::SIGTERM);
    shell.is_over(job, 143);
}

#[test]
fn a_job_that_is_brought_to_the_foreground_has_the_keys() {
    let Some(mut shell) = Shell::start() else { return };
    let job = shell.run(true);
    shell.session.send(b"fg\n");
    shell.works_in_the_foreground();
    shell.session.send(b"Q");
    shell.is_over(job, 0);
}

#[test]
fn a_job_that_was_stopped_goes_on_where_it_was() {
    let Some(mut shell) = Shell::start() else { return };
    let job = shell.run(false);
    shell.works_in_the_foreground();
    for stop in [libc::SIGTSTP, libc::SIGSTOP, libc::SIGTSTP] {
        signal(job, stop);
        wait_until("a stopped job", || is_stopped(job).then_some(()));
        shell.say("true");
        assert!(!shell.is_raw());
        shell.session.send(b"fg\n");
        shell.works_in_the_foreground();
    }
    signal(job, libc::SIGTERM);
    shell.is_over(job, 143);
}

#[test]
fn a_job_that_was_stopped_and_goes_on_in_the_background_can_be_ended() {
    for stop in [libc::SIGTSTP, libc::SIGSTOP] {
        let Some(mut shell) = Shell::start() else { return };
        let job = shell.run(false);
        signal(job, stop);
        wait_until("a stopped job", || is_stopped(job).then_some(()));
        shell.say("bg");
        wait_until("a job that runs", || (!is_stopped(job)).then_some(()));
        shell.say("true");
        assert!(!is_stopped(job));
        // Ending restores the terminal, which is not its to change: that would stop it for ever.
        signal(job, libc::SIGTERM);
        shell.is_over(job, 143);
    }
}

#[test]
fn a_stopped_job_that_is_told_to_end_ends_when_it_goes_on() {
    let Some(mut shell) = Shell::start() else { return };
    let job = shell.run(false);
    signal(job, libc::SIGTSTP);
    wait_until("a stopped job", || is_stopped(job).then_some(()));
    signal(job, libc::SIGTERM);
    signal(job, libc::SIGCONT);
    shell.is_over(job, 143);
}
