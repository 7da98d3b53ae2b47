use super::*;

#[test]
fn every_thread_of_a_vm_has_a_kind_and_every_kind_a_table() {
    let kinds =
        ["vcpu3", "iothread15", "vfio 0000:01:00.0", "signals", "control", "control-client", "main", "?"];
    let found = kinds.map(kind_of);
    use Kind::*;
    assert_eq!(found, [Vcpu, IoThread, VfioPoller, Signals, Control, Control, Main, Main]);
    for (n, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(kind as usize, n, "{kind:?} finds its profile by its number");
        assert!(table(kind).len() > 30);
    }
    profiles(&SandboxConfig { mode: SandboxMode::On, files: Vec::new() }).unwrap();
}

#[test]
fn ioctls_have_the_numbers_of_the_kernels_headers() {
    let vcpu = [0xae80, 0x8090_ae81];
    assert_eq!(VCPU, vcpu);
    assert_eq!(INTERRUPTS, [0x4020_aea5, 0x4008_ae61, 0xc008_ae67, 0x4020_ae76]);
    let kvm = [0x4040_ae79, 0x4008_ae6a, 0x4020_ae46, 0xc208_ae62];
    assert_eq!(DEVICE_REGISTERS[4..8], kvm);
    assert_eq!(DEVICE_REGISTERS[8..12], [0x3b6c, 0x3b6d, 0x3b6e, 0x3b6f]);
}

#[test]
fn no_thread_may_start_a_program_or_open_a_socket_and_a_guests_threads_no_file() {
    let forbidden = calls![SYS_execve SYS_execveat SYS_socket SYS_ptrace SYS_fork SYS_vfork SYS_mount SYS_bpf SYS_open
        SYS_connect SYS_io_uring_setup SYS_io_uring_register SYS_process_vm_writev SYS_userfaultfd];
    let files = calls![SYS_openat SYS_unlink SYS_rename SYS_linkat];
    for kind in KINDS {
        let has = |call: &Call| table(kind).iter().any(|Allowed(allowed, _)| allowed == call);
        assert!(!forbidden.iter().any(has), "{kind:?}");
        let may_open = !matches!(kind, Kind::Vcpu | Kind::IoThread | Kind::VfioPoller);
        assert!(may_open || !files.iter().any(has), "{kind:?}");
    }
}

/// In a process of its own: a sandbox cannot be left.
fn in_a_process(test: &str) -> std::process::Output {
    let name = format!("vm::sandbox::tests::{test}");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--ignored", "--nocapture"]).env_remove("RUST_BACKTRACE");
    command.output().unwrap()
}

/// Starts a thread called `name`, confines it, and lets it do `work`.
fn confined(name: &str, mode: SandboxMode, work: impl FnOnce() + Send + 'static) {
    use crate::host::thread;
    thread::leave_group();
    let (go, gate) = crossbeam_channel::bounded::<()>(0);
    let on_death: thread::OnDeath = Arc::new(|why| panic!("{why}"));
    let body = move || {
        let _ = gate.recv();
        work();
        Ok(())
    };
    let (started, thread) = (thread::spawn(name, on_death, body).unwrap(), thread::group());
    assert_ne!(thread, 0);
    enter(&SandboxConfig { mode, files: Vec::new() });
    drop(go);
    started.join().unwrap();
}

fn open_a_file() {
    // SAFETY: a valid string. The call must not be made by way of anything that could fail before.
    let fd = unsafe { libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY) };
    log::say(format_args!("opened: {}", fd >= 0));
}

#[test]
#[ignore = "ends its process; run by the tests below"]
fn planted_open() {
    confined("vcpu9", SandboxMode::On, open_a_file);
}

#[test]
#[ignore = "confines its process; run by the tests below"]
fn planted_free() {
    confined("iothread9", SandboxMode::On, || {
        // Below the size that is mapped by itself, and together more than a heap keeps.
        let blocks: Vec<_> = (0..200).map(|n| vec![n; 100 << 10]).collect();
        drop(blocks);
        log::say(format_args!("freed"));
    });
}

#[test]
#[ignore = "ends its process; run by the tests below"]
fn planted_ioctl() {
    // TIOCSTI would type a command into the terminal that doorbell was started from.
    // SAFETY: reads one byte.
    confined("iothread9", SandboxMode::On, || _ = unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) });
}

#[test]
#[ignore = "confines its process; run by the tests below"]
fn planted_open_in_log_mode() {
    confined("vcpu9", SandboxMode::Log, open_a_file);
}

#[test]
#[ignore = "confines its process; run by the tests below"]
fn planted_open_outside() {
    confined("control", SandboxMode::On, open_a_file);
}

#[test]
fn a_system_call_that_is_not_in_the_table_ends_the_process_and_is_named() {
    for (test, thread, call) in
        [("planted_open", "vcpu9", "openat;"), ("planted_ioctl", "iothread9", "ioctl 0x5412;")]
    {
        let output = in_a_process(test);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(crate::host::sandbox::EXIT_CODE.into()), "{said}");
        let sentence =
            format!("doorbell: thread {thread} made a system call that its sandbox forbids: {call}");
        assert!(said.contains(&sentence), "{said}");
    }
}

#[test]
fn a_thread_that_frees_much_memory_asks_no_file() {
    let output = in_a_process("planted_free");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("freed"), "{said}");
}

#[test]
fn a_sandbox_that_only_logs_changes_nothing() {
    let output = in_a_process("planted_open_in_log_mode");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("opened: true"), "{said}");
}

#[test]
fn a_thread_that_may_open_files_opens_only_those_that_it_was_left() {
    if Abilities::of_this_host().landlock == 0 {
        return log::say(format_args!("skipped: this kernel has no Landlock"));
    }
    let output = in_a_process("planted_open_outside");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("opened: false"), "{said}");
}
