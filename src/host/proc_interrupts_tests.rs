use super::*;

const BEFORE: &str = "\
            CPU0       CPU1
  1:          9          0   IO-APIC   1-edge      i8042
 26:        100        200  PCI-MSIX-0000:00:03.0   0-edge      vfio-msix[0](0000:00:03.0)
LOC:       1000       2000   Local timer interrupts
ERR:          7
PIN:          1          2   Posted-interrupt notification event
PIW:          0          3   Posted-interrupt wakeup event
";

const AFTER: &str = "\
            CPU0       CPU1
  1:          9          0   IO-APIC   1-edge      i8042
 26:        150        200  PCI-MSIX-0000:00:03.0   0-edge      vfio-msix[0](0000:00:03.0)
 27:          5          6  PCI-MSIX-0000:00:03.0   1-edge      vfio-msix[1](0000:00:03.0)
LOC:       1100       2001   Local timer interrupts
ERR:          7
PIN:         11          2   Posted-interrupt notification event
PIW:          0          3   Posted-interrupt wakeup event
";

#[test]
fn differences_are_per_line_and_new_lines_count_from_zero() {
    let delta = ProcInterrupts::parse(AFTER).since(&ProcInterrupts::parse(BEFORE));
    let relevant: Vec<_> = delta.relevant().map(|line| (line.label.as_str(), line.count)).collect();
    assert_eq!(relevant, [("26", 50), ("27", 11), ("LOC", 101), ("PIN", 10), ("PIW", 0)]);
    assert_eq!(delta.total(), 50 + 11 + 101 + 10);
    assert_eq!((delta.get("ERR"), delta.get("NPI")), (Some(0), None));
}

#[test]
fn an_irq_that_changed_hands_counts_from_zero() {
    let reused = AFTER.replace("vfio-msix[0]", "nvme0q1");
    let delta = ProcInterrupts::parse(&reused).since(&ProcInterrupts::parse(BEFORE));
    assert_eq!(delta.get("26"), Some(350));
}

#[test]
fn the_parts_of_a_line_are_separated() {
    let all = ProcInterrupts::parse(BEFORE);
    assert_eq!(all.lines()[1].what, "PCI-MSIX-0000:00:03.0 0-edge vfio-msix[0](0000:00:03.0)");
    assert!(all.lines()[1].is_vfio() && !all.lines()[0].is_vfio());
    assert_eq!(all.get("ERR"), Some(7));
}

#[test]
fn rubbish_is_skipped() {
    assert_eq!(ProcInterrupts::parse("").lines(), []);
    assert_eq!(ProcInterrupts::parse("nonsense\nno colon here\n").total(), 0);
    assert!(ProcInterrupts::now().unwrap().total() > 0);
}
