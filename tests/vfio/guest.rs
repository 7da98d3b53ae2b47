//! A Linux guest that does one job, run by the `doorbell` program as a user would.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::{NamedTempFile, TempDir};

/// No guest here needs half of it, even in emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(150);

/// The device of this kind that the tests may use, or `None` with a line that says what is missing.
pub fn device(kind: &str) -> Option<String> {
    let name = format!("DOORBELL_LAB_{kind}");
    let found = std::env::var(&name).ok();
    if found.is_none() {
        println!("skipped: no device to pass through: {name} is not set (scripts/lab --device gives one)");
    }
    found
}

pub fn scratch_disk(len: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

pub struct Guest {
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
    code: Option<i32>,
}

fn guest_file(name: &str) -> PathBuf {
    let dir = std::env::var("DOORBELL_GUEST").unwrap_or_else(|_| "target/guest".into());
    PathBuf::from(dir).join(name)
}

/// One file of a cpio archive (newc), as the kernel's initramfs takes it.
fn cpio_entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let (len, name_len) = (content.len() as u32, name.len() as u32 + 1);
    let fields = [1, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
    let mut entry = b"070701".to_vec();
    fields.iter().for_each(|field| entry.extend(format!("{field:08X}").bytes()));
    entry.extend(name.bytes());
    entry.push(0);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

impl Guest {
    /// A guest with one vCPU that runs this shell script.
    pub fn new(job: &str) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let mut initrd = std::fs::read(guest_file("initrd")).unwrap();
        initrd.extend(cpio_entry("job", 0o040_755, b""));
        initrd.extend(cpio_entry("job/run", 0o100_755, format!("#!/bin/sh\n{job}\n").as_bytes()));
        initrd.extend(cpio_entry("TRAILER!!!", 0, b""));
        std::fs::write(dir.path().join("initrd"), initrd).unwrap();
        Guest { dir, cpus: 1, cmdline: "console=ttyS0 quiet panic=-1".into(), args: Vec::new() }
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

    fn start(&self) -> Child {
        let program = std::env::var("DOORBELL_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_doorbell").into());
        Command::new(program)
            .args(["run", "--memory", "512M", "--cpus", &self.cpus.to_string(), "--cmdline", &self.cmdline])
            .arg("--kernel")
            .arg(guest_file("vmlinux"))
            .arg("--initrd")
            .arg(self.dir.path().join("initrd"))
            .arg("--stats")
            .arg(self.dir.path().join("stats.json"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs it to its end, or to the deadline.
    pub fn run(self) -> Run {
        let mut child = self.start();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let console = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let messages = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if begun.elapsed() > DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let stats = std::fs::read(self.dir.path().join("stats.json")).unwrap_or_default();
        Run {
            console: console.join().unwrap(),
            messages: messages.join().unwrap(),
            stats: serde_json::from_slice(&stats).unwrap_or_default(),
            code,
        }
    }

    /// Kills the VMM (SIGKILL) when this text appears on the console.
    pub fn kill_at(self, text: &str) {
        let mut child = self.start();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen =
            lines.map_while(Result::ok).inspect(|line| drop(writeln!(std::io::stdout(), "{line}")));
        let found = seen.any(|line| line.contains(text));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found, "the guest ended before it said '{text}'");
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
