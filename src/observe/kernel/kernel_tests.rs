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
    let counts = counts(&[("irqfd_wakeup", Ok(0)), ("kvm_irqfd_assign", Err("it is inlined"))]);
    let text = counts.to_string();
    assert!(text.contains("absent: it is inlined"), "{text}");
    assert!(text.lines().any(|line| line.trim_end().ends_with(" 0")), "{text}");
}

fn counts(all: &[(&str, Result<u64, &str>)]) -> Counts {
    let counted = |&(name, hits): &(&str, Result<u64, &str>)| Counted {
        name: name.into(),
        hits: hits.ok(),
        tracepoint: false,
        vendor: Vendor::of(name),
        absent: hits.err().map(String::from),
    };
    Counts { method: "test", counts: all.iter().map(counted).collect(), stacks: Vec::new() }
}

#[test]
fn vendors_have_their_own_lines_and_a_module_that_is_not_loaded_has_one() {
    // Whatever this host has: hits are shown, and names that nothing was hit of are absent for one reason.
    let counts = counts(&[
        ("vmx_deliver_interrupt", Ok(7)),
        ("irqfd_wakeup", Ok(9)),
        ("vmx_pi_update_irte", Err("it is inlined")),
        ("svm_deliver_interrupt", Err("kvm_amd is not loaded")),
        ("avic_ring_doorbell", Err("kvm_amd is not loaded")),
    ]);
    let text = counts.to_string();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}: {text}"));
    assert!(at("irqfd_wakeup") < at("Intel's:") && at("Intel's:") < at("vmx_deliver_interrupt"));
    assert!(at("vmx_pi_update_irte") < at("AMD's:"));
    if !Vendor::Amd.is_loaded() {
        assert!(text.contains(" AMD's: all absent, kvm_amd is not loaded\n"), "{text}");
        assert!(!text.contains("svm_deliver"), "{text}");
    }
}

#[test]
fn the_names_of_the_evidence_are_unique_and_grouped() {
    let mut names = EVIDENCE.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), EVIDENCE.len());
    assert!(STACKS.iter().all(|name| EVIDENCE.contains(name)));
    for (name, vendor) in [
        ("handle_ept_misconfig", Some(Vendor::Intel)),
        ("flat_send_IPI_mask(0xf2)", Some(Vendor::Intel)),
        ("avic_pi_update_irte", Some(Vendor::Amd)),
        ("npf_interception", Some(Vendor::Amd)),
        ("kvm:kvm_apicv_accept_irq", None),
        ("irqfd_wakeup", None),
    ] {
        assert_eq!(Vendor::of(name), vendor, "{name}");
    }
}

#[test]
fn a_value_of_an_argument_stands_behind_the_function() {
    assert_eq!(names::parse("flat_send_IPI_mask(0xf2)"), ("flat_send_IPI_mask", Some(0xf2)));
    for plain in ["irqfd_wakeup", "kvm:kvm_exit", "x(f2)", "x(0xzz)", "x(0xf2"] {
        assert_eq!(names::parse(plain), (plain, None));
    }
}

/// Only calls with that value count; a kernel function with a size as its second argument.
#[test]
fn calls_are_counted_by_the_value_of_an_argument() {
    let evidence = match KernelEvidence::start(&["eventfd_write(0x1234567)", "eventfd_write"]) {
        Ok(evidence) => evidence,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    for _ in 0..50 {
        event.write(1).unwrap();
    }
    let counts = evidence.stop().unwrap();
    if !counts.method.starts_with("tracefs") {
        return eprintln!("skipped: perf events cannot look at an argument");
    }
    // The second argument of eventfd_write is the buffer in user space, never at that odd address.
    assert_eq!(counts.get("eventfd_write(0x1234567)"), Some(0), "{counts}");
    assert!(counts.get("eventfd_write").unwrap() >= 50, "{counts}");
}
