//! One run of `doorbell run` with the Linux guest of guest-images/linux and a job for it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use doorbell::bench::linux::archive::{Cpio, untar};
use tempfile::TempDir;

use super::stats::Stats;
use super::{disks, ground};

/// Shell code: waits for [`Running::go`].
pub const WAIT: &str = "read -r go </dev/console";

/// A guest to be started.
pub struct Guest {
    kernel: &'static str,
    cpus: u8,
    cmdline: &'static str,
    arguments: Vec<String>,
    script: String,
    files: Vec<(String, String)>,
    deadline: Duration,
}

impl Guest {
    /// One vCPU with `bzImage`, a job that runs `script` (of `sh -e`), and a deadline of a minute on hardware.
    pub fn new(script: impl Into<String>) -> Guest {
        Guest {
            kernel: "bzImage",
            cpus: 1,
            cmdline: "",
            arguments: Vec::new(),
            script: script.into(),
            files: Vec::new(),
            deadline: ground::deadline(60),
        }
    }

    pub fn kernel(mut self, name: &'static str) -> Guest {
        self.kernel = name;
        self
    }

    pub fn cpus(mut self, cpus: u8) -> Guest {
        self.cpus = cpus;
        self
    }

    /// More for the kernel command line.
    pub fn cmdline(mut self, more: &'static str) -> Guest {
        self.cmdline = more;
        self
    }

    /// A `--disk`.
    pub fn disk(self, disk: impl Into<String>) -> Guest {
        self.argument("--disk").argument(disk)
    }

    pub fn argument(mut self, argument: impl Into<String>) -> Guest {
        self.arguments.push(argument.into());
        self
    }

    /// A file of the job's directory, `/job`.
    pub fn file(mut self, name: &str, content: impl Into<String>) -> Guest {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Seconds on hardware from the job's start to the guest's end.
    pub fn deadline(mut self, seconds: u64) -> Guest {
        self.deadline = ground::deadline(seconds);
        self
    }

    /// Starts it and waits until its job begins.
    ///
    /// In the lab a guest may be lost while its kernel boots, for reasons of the emulation (docs/lab.md). It is then
    /// started once more, and says so. Whatever happens after the job began counts: a lost interrupt looks just like it.
    pub fn start(&self) -> Running {
        for attempt in 1.. {
            let mut running = self.launch();
            let Err(problem) = running.wait(|line| line == "@job") else {
                return running.with_deadline(self.deadline);
            };
            let outcome = running.end();
            // A guest of the lab hangs or resets itself; a doorbell that ends by itself has another reason.
            let lost = outcome.exit.code() == Some(0) || outcome.exit.signal() == Some(libc::SIGKILL);
            if !ground::in_lab() || !lost || attempt == 2 {
                panic!("{problem} before the job began\n{outcome}");
            }
            println!("lost run: {problem} before the job began; started again, 1 of 1\n{outcome}");
        }
        unreachable!()
    }

    /// Runs it to its end, which must be a good one.
    pub fn run(&self) -> Outcome {
        self.start().finish()
    }

    fn launch(&self) -> Running {
        let directory = disks::directory();
        let at = |name: &str| directory.path().join(name);
        let images = ground::guest_directory();
        let mut initrd = fs::read(images.join("initrd")).expect("cannot read the guest's initrd");
        initrd.extend(self.job());
        fs::write(at("initrd"), initrd).expect("cannot write an initrd");
        disks::file(&at("out"), 16 << 20);
        let stderr = File::create(at("stderr")).expect("cannot make a file");

        let mut command = Command::new(ground::doorbell());
        command.arg("run").arg("--kernel").arg(images.join(self.kernel)).arg("--initrd").arg(at("initrd"));
        command.arg("--cmdline").arg(format!("console=ttyS0 quiet panic=-1 {}", self.cmdline));
        command.args(["--cpus", &self.cpus.to_string(), "--memory", "384M"]);
        command.arg("--stats").arg(at("stats"));
        command.arg("--disk").arg(format!("path={},serial=doorbell-out", at("out").display()));
        command.args(&self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("doorbell cannot be started");

        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("it is piped");
        let reader = thread::spawn(move || {
            let mut console = String::new();
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_string();
                console += &format!("{line}\n");
                let _ = sender.send(line);
            }
            console
        });
        Running { directory, child, lines, reader: Some(reader), ends: Instant::now() + ground::deadline(20) }
    }

    fn job(&self) -> Vec<u8> {
        let mut job = Cpio::default();
        job.directory("job");
        job.file("job/run", 0o755, format!("#!/bin/sh -e\nmark job\n{}\n", self.script).as_bytes());
        for (name, content) in &self.files {
            job.file(&format!("job/{name}"), 0o644, content.as_bytes());
        }
        job.finish()
    }
}

/// A guest whose job runs. Dropping it kills it.
pub struct Running {
    directory: TempDir,
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<String>>,
    ends: Instant,
}

impl Running {
    fn with_deadline(mut self, deadline: Duration) -> Running {
        self.ends = Instant::now() + deadline;
        self
    }

    fn wait(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(self.ends.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err("the guest passed its deadline".into()),
                Err(RecvTimeoutError::Disconnected) => return Err("the run ended".into()),
            }
        }
    }

    /// Waits for the job's next `mark` that starts with `mark`. Returns the rest of it.
    pub fn mark(&mut self, mark: &str) -> String {
        let wanted = format!("@{mark}");
        match self.wait(|line| line.starts_with(&wanted)) {
            Ok(line) => line[wanted.len()..].trim().to_string(),
            Err(problem) => panic!("{problem} while it should say {wanted}\n{}", self.end()),
        }
    }

    /// Lets a job go on that waits with [`WAIT`].
    pub fn go(&mut self) {
        let console = self.child.stdin.as_mut().expect("it is piped");
        console.write_all(b"go\n").expect("the guest's console is closed");
    }

    /// The VMM, to be found among processes.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, as a host that fails. Returns the lines that the guest had written.
    pub fn kill(mut self) -> Outcome {
        self.end()
    }

    /// Waits for the guest's end. The job must have ended with status 0, the guest must have powered off, its kernel have
    /// found nothing to warn of, and doorbell have ended with exit code 0.
    pub fn finish(mut self) -> Outcome {
        // The console closes when the process ends, or just before.
        while let Ok(_line) = self.wait(|_| true) {}
        while Instant::now() < self.ends && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        let in_time = Instant::now() < self.ends;
        let outcome = self.end();
        let warned = outcome.text("dmesg").contains("WARNING: CPU");
        let good = outcome.exit.success() && outcome.text("status").trim() == "0" && !warned;
        match (in_time, good) {
            (false, _) => panic!("the guest passed its deadline\n{outcome}"),
            (true, false) if warned => {
                panic!("the guest's kernel warns\n{outcome}\n-- dmesg\n{}", outcome.text("dmesg"))
            }
            (true, false) => panic!("the run failed\n{outcome}"),
            (true, true) => outcome,
        }
    }

    fn end(&mut self) -> Outcome {
        let _ = self.child.kill(); // does nothing to a process that has ended
        let exit = self.child.wait().expect("it is ours");
        let console = self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let read = |name: &str| fs::read(self.directory.path().join(name)).unwrap_or_default();
        let stats = serde_json::from_slice(&read("stats")).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&read("stderr")).into_owned();
        let out = read("out");
        let files = untar(&out).unwrap_or_default().into_iter().map(|(name, file)| (name, file.to_vec()));
        Outcome { exit, console, stderr, files: files.collect(), stats: Stats(stats) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    pub exit: ExitStatus,
    pub console: String,
    pub stderr: String,
    /// The job's files, `log` and `status` among them.
    pub files: HashMap<String, Vec<u8>>,
    pub stats: Stats,
}

impl Outcome {
    /// A file that the job left, or nothing.
    pub fn text(&self, name: &str) -> String {
        self.files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.exit.code(), self.exit.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
        };
        writeln!(f, "doorbell: {end}\n-- its stderr\n{}-- console\n{}", self.stderr, self.console)?;
        writeln!(f, "-- job: status {}\n{}", self.text("status").trim(), self.text("log"))?;
        write!(f, "-- stats\n{}", self.stats.0)
    }
}

/// A path in a `--disk`.
pub fn path(path: &Path) -> String {
    format!("path={}", path.display().to_string().replace(',', ",,"))
}
