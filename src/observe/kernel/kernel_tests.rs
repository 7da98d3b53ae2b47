use super::*;

/// Runs where the kernel can be traced (the lab, or a host as root), otherwise prints why it is skipped.
#[test]
fn functions_are_counted_and_nothing_is_left() {
    let names =
        ["eventfd_write", "no_such_function_here", "syscalls:sys_enter_getpid", "kvm:no_such_tracepoint"];
    let evidence = match KernelEvidence::start(&names) {
        Ok(evidence) => evidence,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    for _ in 0..100 {
        event.write(1).unwrap();
    }
    let counts = evidence.stop().unwrap();
    // Others on this host may write eventfds too. Perf events count functions only on some kernels.
    if counts.method.starts_with("tracefs") {
        assert!(counts.get("eventfd_write").unwrap() >= 100, "{counts}");
    }
    assert_eq!((counts.get("no_such_function_here"), counts.get("kvm:no_such_tracepoint")), (None, None));
    let left = std::fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap_or_default();
    assert!(!left.contains(&format!("doorbell_{}", std::process::id())), "{left}");
}

#[test]
fn perf_events_count_what_the_kernel_lets_them() {
    let mut perf = match Perf::open() {
        Ok(perf) => perf,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    for name in
        ["syscalls:sys_enter_getpid", "raw_syscalls:sys_enter", "eventfd_write", "kvm:no_such", "no_such"]
    {
        if let Err(error) = perf.count(name) {
            return eprintln!("skipped: {error}");
        }
    }
    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    for _ in 0..100 {
        event.write(1).unwrap();
    }
    let hits = |name| perf.hits(name).unwrap();
    assert!(hits("raw_syscalls:sys_enter").is_none_or(|hits| hits >= 100));
    assert!(hits("eventfd_write").is_none_or(|hits| hits >= 100));
    assert_eq!((hits("kvm:no_such"), hits("no_such"), hits("never asked for")), (None, None, None));
}

#[test]
fn absent_is_not_zero() {
    let counted = |name: &str, hits| Counted { name: name.into(), hits, tracepoint: false };
    let counts = Counts {
        method: "test",
        counts: vec![counted("irqfd_wakeup", Some(0)), counted("kvm_irqfd_assign", None)],
        stacks: Vec::new(),
    };
    let text = counts.to_string();
    assert!(text.contains("absent") && text.lines().any(|line| line.trim_end().ends_with(" 0")), "{text}");
}
