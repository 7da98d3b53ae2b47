use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::names::parse;
use super::{EvidenceError, StackTree, stacks};

/// Mount points of tracefs; the second is debugfs's, on older hosts.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Names of our instances and event groups begin with this; our process ID and a number follow.
const PREFIX: &str = "doorbell_";

/// The first stacks of each function that are kept. Each costs some microseconds, so a limit keeps the run fast.
const STACKS_PER_FUNCTION: u32 = 256;

/// Room for those stacks on each CPU.
const BUFFER_KIB: u32 = 256;

/// The cleanup if we are killed; see [`remove`].
const CLEANUP: &str = r#"
cat >/dev/null
[ -d "$1" ] || exit 0
rmdir "$1"
sed -n "s|^[^:]*:\($3/[^ ]*\).*|-:\1|p" "$2" | while read -r line; do echo "$line" >>"$2"; done
"#;

/// The key of the hist triggers: its name since Linux 5.15, and before.
const CPU_KEYS: [&str; 2] = ["common_cpu", "cpu"];

/// A separate tracing instance with the events that we switched on in it. Drop removes all of it.
#[derive(Debug)]
pub(super) struct Session {
    root: PathBuf,
    /// Name of the instance and of the group of our kprobe events.
    name: String,
    events: Vec<Event>,
    cleanup: Option<Child>,
}

#[derive(Debug)]
struct Event {
    name: String,
    /// Its directory in the instance; `None`: absent here.
    dir: Option<PathBuf>,
    stacks: bool,
}

/// The mount point of tracefs.
pub(super) fn tracefs() -> Result<&'static Path, EvidenceError> {
    match MOUNTS.iter().map(Path::new).find(|root| root.join("README").exists()) {
        Some(root) => Ok(root),
        // Without permission, the directory cannot be read at all.
        None if !is_root() => Err(EvidenceError::Permission),
        None => Err(EvidenceError::NotMounted),
    }
}

impl Session {
    pub fn open() -> Result<Session, EvidenceError> {
        Session::at(tracefs()?)
    }

    pub fn at(root: &Path) -> Result<Session, EvidenceError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let readme = read(&root.join("README"))?;
        if !readme.contains("hist trigger") {
            return Err(EvidenceError::Lacks("hist triggers (CONFIG_HIST_TRIGGERS)"));
        }
        if !root.join("kprobe_events").exists() {
            return Err(EvidenceError::Lacks("kprobe events (CONFIG_KPROBE_EVENTS)"));
        }
        remove_leftovers(root);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}_{number}", std::process::id());
        let instance = root.join("instances").join(&name);
        fs::create_dir(&instance).map_err(|source| match source.raw_os_error() {
            Some(libc::EEXIST) => EvidenceError::Busy(format!("{} exists already", instance.display())),
            Some(libc::ENOMEM | libc::EBUSY) => EvidenceError::Busy("no more tracing instances".into()),
            _ => failed(&instance, source),
        })?;
        // From here on drop removes the instance.
        let mut session = Session { root: root.into(), name, events: Vec::new(), cleanup: None };
        session.cleanup = session.start_cleanup().ok();
        append(&session.instance().join("buffer_size_kb"), &BUFFER_KIB.to_string())?;
        Ok(session)
    }

    fn instance(&self) -> PathBuf {
        self.root.join("instances").join(&self.name)
    }

    /// Starts a child that outlives us, even after `kill -9`, and removes what we left. It waits for the end of its
    /// standard input, which only we hold open.
    fn start_cleanup(&self) -> io::Result<Child> {
        Command::new("/bin/sh")
            .args(["-c", CLEANUP, "doorbell-cleanup"])
            .args([self.instance(), self.root.join("kprobe_events")])
            .arg(&self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In another process group, so that Ctrl-C does not end it.
            .process_group(0)
            .spawn()
    }

    /// Counts `name`, a function or `group:tracepoint`, from now on.
    ///
    /// Returns why this kernel has nothing of that name, if so.
    pub fn count(&mut self, name: &str, stacks: bool) -> Result<Option<&'static str>, EvidenceError> {
        let events = self.instance().join("events");
        let (function, value) = parse(name);
        let (dir, absent) = match name.split_once(':') {
            Some((group, event)) => {
                let dir = Some(events.join(group).join(event)).filter(|dir| dir.exists());
                let absent = dir.is_none().then_some("this kernel has no such tracepoint");
                (dir, absent)
            }
            None => {
                // A name of its own: the function may be counted by itself, too.
                let event = value.map_or(function.into(), |value| format!("{function}_{value:x}"));
                let absent = self.probe(&event, function, value.is_some())?;
                (absent.is_none().then(|| events.join(&self.name).join(&event)), absent)
            }
        };
        if let Some(dir) = &dir {
            let trigger = dir.join("trigger");
            // Appended, never truncated: opening a trigger file for truncation removes what is in it.
            let filter = value.map_or(String::new(), |value| format!(" if value=={value}"));
            let hist = |key| append(&trigger, &format!("hist:keys={key}:size={}{filter}", hist_size()));
            hist(CPU_KEYS[0]).or_else(|_| hist(CPU_KEYS[1]))?;
            if stacks {
                append(&trigger, &format!("stacktrace:{STACKS_PER_FUNCTION}"))?;
            }
        }
        self.events.push(Event { name: name.into(), dir, stacks });
        Ok(absent)
    }

    /// Puts a kprobe at the entry of `function`, with its second argument as `value` if that is wanted (in %rsi, System V
    /// ABI). Returns why it cannot be put there.
    fn probe(&self, event: &str, function: &str, value: bool) -> Result<Option<&'static str>, EvidenceError> {
        let file = self.root.join("kprobe_events");
        let argument = if value { " value=%si:u32" } else { "" };
        match append_raw(&file, &format!("p:{}/{event} {function}{argument}", self.name)) {
            Ok(()) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(Some("this kernel has no such function, or it is inlined"))
            }
            Err(e) => match e.raw_os_error() {
                Some(libc::EADDRNOTAVAIL) => Ok(Some("this kernel has several functions of that name")),
                Some(libc::EILSEQ | libc::EINVAL) => Ok(Some("this kernel does not allow probes on it")),
                _ => Err(failed(&file, e)),
            },
        }
    }

    /// Hits of `name` so far; `None`: absent.
    pub fn hits(&self, name: &str) -> Result<Option<u64>, EvidenceError> {
        let event = self.events.iter().find(|event| event.name == name);
        let Some(dir) = event.and_then(|event| event.dir.as_ref()) else { return Ok(None) };
        Ok(hits(&read(&dir.join("hist"))?))
    }

    /// The stacks kept so far, one tree per sampled function that was hit.
    pub fn stacks(&self) -> Result<Vec<StackTree>, EvidenceError> {
        let functions: Vec<_> =
            self.events.iter().filter(|e| e.stacks && e.dir.is_some()).map(|e| &*e.name).collect();
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(stacks::trees(&read(&self.instance().join("trace"))?, &functions))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        remove(&self.root, &self.name);
        if let Some(mut cleanup) = self.cleanup.take() {
            // Close its standard input; nothing is left for it to do.
            let _ = cleanup.wait();
        }
    }
}

/// Removes an instance and its kprobe events. The triggers go with the instance; then no event is in use.
fn remove(root: &Path, name: &str) {
    let _ = fs::remove_dir(root.join("instances").join(name));
    let file = root.join("kprobe_events");
    let events = fs::read_to_string(&file).unwrap_or_default();
    let group = format!("{name}/");
    for event in events.lines().filter_map(|line| line.split_whitespace().next()?.split_once(':')) {
        if event.1.starts_with(&group) {
            let _ = append_raw(&file, &format!("-:{}", event.1));
        }
    }
}

/// Removes what killed doorbells left behind.
fn remove_leftovers(root: &Path) {
    let names = fs::read_dir(root.join("instances")).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(root, &name);
        }
    }
}

/// The process that made the instance, from its name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
}

/// Entries of a histogram with one per CPU; the kernel accepts powers of two from 128 on.
fn hist_size() -> usize {
    // SAFETY: takes no pointer.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    usize::try_from(cpus).unwrap_or(1).next_power_of_two().max(128)
}

/// The `Hits:` line of a hist file.
fn hits(hist: &str) -> Option<u64> {
    hist.lines().find_map(|line| line.trim().strip_prefix("Hits:")?.trim().parse().ok())
}

fn is_root() -> bool {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn append_raw(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(format!("{line}\n").as_bytes())
}

fn append(path: &Path, line: &str) -> Result<(), EvidenceError> {
    append_raw(path, line).map_err(|source| failed(path, source))
}

fn read(path: &Path) -> Result<String, EvidenceError> {
    fs::read_to_string(path).map_err(|source| failed(path, source))
}

pub(super) fn failed(path: &Path, source: io::Error) -> EvidenceError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if !is_root() => EvidenceError::Permission,
        Some(libc::EPERM) => EvidenceError::Lockdown,
        Some(libc::EBUSY) => EvidenceError::Busy(path.display().to_string()),
        _ => EvidenceError::Io { path: path.display().to_string(), source },
    }
}

#[cfg(test)]
#[path = "tracefs_tests.rs"]
mod tests;
