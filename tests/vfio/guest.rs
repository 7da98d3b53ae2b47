//! A Linux guest that does one job, run by the `doorbell` program as a user would.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use doorbell::bench::linux::archive::Cpio;
use tempfile::{NamedTempFile, TempDir};

/// No guest here needs half of it, even in emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a guest says first in its job.
const BEGUN: &str = "@begun";

/// The device of this kind that the tests may use, or `None` with a line that says what is missing.
pub fn device(kind: &str) -> Option<String> {
    let name = format!("DOORBELL_LAB_{kind}");
    let found = std::env::var(&name).ok();
    if found.is_none() {
        println!("skipped: no device to pass through: {name} is not set (scripts/lab --device gives one)");
    }
    found
}

/// The program under test.
pub fn doorbell() -> Command {
    let program = std::env::var("DOORBELL_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_doorbell").into());
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

pub fn scratch_disk(len: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

pub struct Guest {
    image: PathBuf,
    dir: TempDir,
    cpus: u8,
    cmdline: String,
    args: Vec<String>,
}

pub struct Run {
    /// What came on the serial console.
    pub console: String,
    /// What doorbell said.
    pub messages: String,
    stats: serde_json::Value,
    pub code: Option<i32>,
}

/// Where the guest's kernel and initrd are.
pub fn image() -> PathBuf {
    std::env::var_os("DOORBELL_GUEST").map_or_else(|| "target/guest".into(), PathBuf::from)
}

impl Guest {
    /// A guest with one vCPU that runs this shell script.
    pub fn new(job: &str) -> Guest {
        Guest::new_in(image(), job)
    }

    /// The same with the guest image of this directory.
    pub fn new_in(image: PathBuf, job: &str) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let mut initrd = std::fs::read(image.join("initrd")).unwrap();
        let mut cpio = Cpio::default();
        cpio.directory("job");
        let script = format!("#!/bin/sh\necho {BEGUN} >/dev/console\n{job}\n");
        cpio.file("job/run", 0o755, script.as_bytes());
        initrd.extend(cpio.finish());
        std::fs::write(dir.path().join("initrd"), initrd).unwrap();
        Guest { image, dir, cpus: 1, cmdline: "console=ttyS0 quiet panic=-1".into(), args: Vec::new() }
    }

    pub fn cpus(mut self, cpus: u8) -> Guest {
        self.cpus = cpus;
        self
    }

    pub fn cmdline(mut self, more: &str) -> Guest {
        self.cmdline.push(' ');
        self.cmdline.push_str(more);
        self
    }

    pub fn arg(mut self, name: &str, value: &str) -> Guest {
        self.args.extend([name.into(), value.into()]);
        self
    }

    fn start(self) -> Running {
        let mut child = doorbell()
            .args(["run", "--memory", "512M", "--cpus", &self.cpus.to_string(), "--cmdline", &self.cmdline])
            .arg("--kernel")
            .arg(self.image.join("vmlinux"))
            .arg("--initrd")
            .arg(self.dir.path().join("initrd"))
            .arg("--stats")
            .arg(self.dir.path().join("stats.json"))
            .args(&self.args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on whether anybody listens or not: a console that nobody reads would stop the guest.
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = said.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let messages = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let end = Instant::now() + DEADLINE;
        Running { guest: self, child, lines, console: String::new(), messages: Some(messages), end }
    }

    /// Up to where its job begins. With two vCPUs in the lab a guest's kernel may not get that far, which no VMM can cure
    /// (docs/lab.md): it is started once more then, and that is said.
    fn begin(self) -> Running {
        let spare = Guest {
            image: self.image.clone(),
            dir: tempfile::tempdir().unwrap(),
            cpus: self.cpus,
            cmdline: self.cmdline.clone(),
            args: self.args.clone(),
        };
        std::fs::copy(self.dir.path().join("initrd"), spare.dir.path().join("initrd")).unwrap();
        let mut first = self.start();
        first.end = Instant::now() + DEADLINE / 2;
        if first.hears(BEGUN) {
            first.end = Instant::now() + DEADLINE;
            return first;
        }
        if spare.cpus == 1 || std::env::var_os("DOORBELL_LAB").is_none() {
            return first;
        }
        let lost = first.finish();
        println!(
            "lost run: the guest's kernel did not come up; started again, 1 of 1: {}",
            lost.console.trim()
        );
        spare.start()
    }

    /// Runs it to its end, or to the deadline.
    pub fn run(self) -> Run {
        self.begin().finish()
    }

    /// Lets it run on once this text has appeared on the console (of a job's own words, what it writes to /dev/console).
    pub fn until(self, text: &str) -> Running {
        let mut running = self.begin();
        if !running.hears(text) {
            let run = running.finish();
            panic!("the guest has not said '{text}':\n{}\n{}", run.console, run.messages);
        }
        running
    }
}

/// A VMM that runs; killed (SIGKILL) when it is dropped.
pub struct Running {
    guest: Guest,
    child: Child,
    lines: mpsc::Receiver<String>,
    console: String,
    messages: Option<JoinHandle<String>>,
    end: Instant,
}

impl Running {
    /// Waits for this text on the console; `false` at the deadline, or when the VMM ended.
    fn hears(&mut self, text: &str) -> bool {
        while !self.console.contains(text) {
            let Ok(line) = self.lines.recv_timeout(self.end.saturating_duration_since(Instant::now())) else {
                return false;
            };
            self.console.extend([&*line, "\n"]);
        }
        true
    }

    /// Kills it now, in the middle of whatever it does.
    pub fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it has ended by itself");
    }

    fn finish(mut self) -> Run {
        // No line has this: to the end of the console, which is the VMM's.
        let never = "\u{0}";
        self.hears(never);
        if Instant::now() >= self.end {
            let _ = self.child.kill();
            self.end = Instant::now() + DEADLINE;
            self.hears(never);
        }
        let code = self.child.wait().unwrap().code();
        let stats = std::fs::read(self.guest.dir.path().join("stats.json")).unwrap_or_default();
        Run {
            console: std::mem::take(&mut self.console),
            messages: self.messages.take().map(|reader| reader.join().unwrap()).unwrap_or_default(),
            stats: serde_json::from_slice(&stats).unwrap_or_default(),
            code,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// The VMM ended with code 0.
    pub fn ended_well(&self) {
        assert_eq!(self.code, Some(0), "{}\n{}", self.console, self.messages);
    }

    /// The job ended with status 0, and so did the VMM.
    pub fn passed(&self) {
        self.ended_well();
        assert!(self.console.contains("status 0, log:"), "{}\n{}", self.console, self.messages);
    }

    /// The number behind `word` at the start of a line of the console.
    pub fn number(&self, word: &str) -> u64 {
        let line = self.console.lines().find_map(|line| line.trim().strip_prefix(word)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("no '{word} NUMBER' in:\n{}", self.console))
    }

    fn vector(&self, name: &str) -> &serde_json::Value {
        let vectors = self.stats["vfio"][0]["vectors"].as_array();
        let found = vectors.and_then(|all| all.iter().find(|vector| vector["name"] == name));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.stats))
    }

    /// How often the host has handled this vector (`MSI-X 1`, `INTx`).
    pub fn host_count(&self, name: &str) -> u64 {
        self.vector(name)["host"].as_u64().unwrap()
    }

    /// How often the VMM has.
    pub fn through_vmm(&self, name: &str) -> u64 {
        self.vector(name)["through_vmm"].as_u64().unwrap()
    }
}
