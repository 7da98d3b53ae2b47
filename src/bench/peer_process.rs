//! The process of a reference VMM: it takes turns with ours, and does not outlive it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that does not outlive us: killed on drop, and by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct PeerProcess {
    child: Child,
    /// As it is called in messages.
    program: String,
}

/// The first line of `PROGRAM --version`.
///
/// # Errors
/// Why it cannot be started, as a clause.
pub fn version(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|e| reason(&program.display().to_string(), &e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn reason(program: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program} does not start: {error}"),
    }
}

impl PeerProcess {
    /// Starts it, with nothing to read and nowhere to write but the errors that [`PeerProcess::ended`] shows.
    ///
    /// # Errors
    /// Why it does not start, as a clause.
    pub fn start(mut command: Command) -> Result<PeerProcess, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: getpid cannot fail.
        let us = unsafe { libc::getpid() };
        // A process group of its own: Ctrl-C goes to us, and we end it.
        command.process_group(0);
        let bind = move || {
            // SAFETY: system calls without pointers, allowed between fork and exec.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // We may have died before that took effect.
                if libc::getppid() != us {
                    libc::_exit(1);
                }
            }
            Ok(())
        };
        // SAFETY: `bind` does nothing but those two calls.
        unsafe { command.pre_exec(bind) };
        match command.spawn() {
            Ok(child) => Ok(PeerProcess { child, program }),
            Err(error) => Err(reason(&program, &error)),
        }
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Why it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let mut output = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut output);
        }
        // The first error line; hints may follow it.
        let line = output.lines().map(str::trim).find(|line| !line.is_empty() && !line.contains("warning:"));
        Some(line.map_or_else(
            || format!("{} ended with {status}", self.program),
            |line| format!("it says \"{line}\""),
        ))
    }

    /// Lets all its threads run, or stops them.
    pub fn set_running(&self, running: bool) {
        let signal = if running { libc::SIGCONT } else { libc::SIGSTOP };
        // SAFETY: no pointers; the process is our child, so its PID is not reused until we have waited for it.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Keeps its vCPU on one host CPU and everything else on another.
    pub fn pin(&self, vcpu: usize, rest: usize) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        for task in tasks.into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let cpu = if name.starts_with("CPU ") { vcpu } else { rest };
            let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            // SAFETY: a cpu_set_t is plain bits.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            if cpu < 8 * size_of_val(&set) {
                // SAFETY: the index is within the set.
                unsafe { libc::CPU_SET(cpu, &mut set) };
                // SAFETY: reads the set, which outlives the call. A thread that has just ended needs no CPU.
                unsafe { libc::sched_setaffinity(id, size_of_val(&set), &set) };
            }
        }
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
