//! The job of a reference VMM's guest. The guest has no marker register, so it marks its progress on the console. It writes
//! each step's results to its disk at once, so they are valid whatever happens later.

use std::fmt::Write;

use crate::bench::linux::archive::Cpio;
use crate::bench::linux::fio_job::FioJob;
use crate::bench::linux::script::{MEASURE, add_jobs};

/// Ready for the next step. It is then stopped within [`PAUSE_S`].
pub const READY: &str = "ready";
/// fio starts.
pub const BEGIN: &str = "begin";
/// fio has ended; its status follows.
pub const END: &str = "end";
/// How long it waits to be stopped.
const PAUSE_S: u32 = 1;

const FUNCTIONS: &str = r#"
results=$(disk_by_serial doorbell-out) || exit 1
DISK=$(disk_by_serial bench) || exit 1
export DISK
device=$(readlink -f "/sys/block/$(basename "$DISK")/device")
basename "$device" >device

ready() {
    mark ready
    sleep "$PAUSE"
}

# step JOB
step() {
    measure "$1" fio. begin end
    tar -cf - device fio.before fio.after fio.json | dd of="$results" bs=64k conv=fsync 2>/dev/null
    ready
}

fio --eta=never --output=/dev/null warm-up.fio || exit 1
ready
"#;

/// `/job` of its guest: `steps` are places in `jobs`, in the order of its steps.
pub fn archive(
    steps: impl Iterator<Item = usize>,
    jobs: &[FioJob],
    block_size: u64,
    runtime_s: f64,
    warm_up_s: f64,
) -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.directory("job");
    cpio.file("job/run", 0o755, run(steps, runtime_s).as_bytes());
    add_jobs(&mut cpio, jobs, block_size, runtime_s, warm_up_s);
    cpio.finish()
}

fn run(steps: impl Iterator<Item = usize>, runtime_s: f64) -> String {
    let runtime = runtime_s.ceil();
    let mut script = format!(
        "#!/bin/sh\n# Made by doorbell bench.\nPAUSE={PAUSE_S}\nexport RUNTIME={runtime:.0}\n{MEASURE}{FUNCTIONS}\n"
    );
    steps.for_each(|job| _ = writeln!(script, "step {job}.fio"));
    script
}

/// The mark in a line of the console.
pub fn mark(line: &str) -> Option<&str> {
    // The kernel may have printed something before it.
    let (_, mark) = line.rsplit_once('@')?;
    let mark = mark.trim();
    [READY, BEGIN, END].iter().any(|known| mark.split(' ').next() == Some(known)).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_shell_with_a_line_per_step() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let script = run([0, 1, 0].into_iter(), 0.5);
        let steps: Vec<_> = script.lines().filter(|line| line.starts_with("step ")).collect();
        assert_eq!(steps, ["step 0.fio", "step 1.fio", "step 0.fio"]);
        let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(sh.wait().unwrap().success());
        assert!(script.contains(&format!("measure \"$1\" fio. {BEGIN} {END}\n")));
        assert!(script.contains(&format!("mark {READY}\n")));
    }

    #[test]
    fn marks_are_found_among_other_output() {
        assert_eq!(mark("@end 0\r"), Some("end 0"));
        assert_eq!(mark("[    3.1] random: crng init@ready\r"), Some("ready"));
        assert_eq!(mark("root@somewhere"), None);
        assert_eq!(mark("no mark"), None);
    }
}
