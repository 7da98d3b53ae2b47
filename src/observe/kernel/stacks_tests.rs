use super::*;

const TRACE: &str = "\
# tracer: nop
             cat-117     [000] .....     5.777151: <stack trace>
 => kprobe_trace_func
 => kprobe_ftrace_handler
 => 0xffffffffc036a0c8
 => irqfd_wakeup
 => __wake_up_common
 => eventfd_write
 => do_syscall_64
       iothread0-118     [000] .....     5.801724: <stack trace>
 => irqfd_wakeup [kvm]
 => __wake_up_common
 => eventfd_signal+0x10/0x40
 => vfio_msihandler
           other-118     [000] .....     5.801724: <stack trace>
 => vfs_read
           vcpu0-118     [000] .....     5.801724: <stack trace>
 => irqfd_wakeup
 => __wake_up_common
 => eventfd_write
 => do_syscall_64
";

#[test]
fn stacks_are_merged_from_the_outermost_caller_inwards() {
    let trees = trees(TRACE, &["irqfd_wakeup", "ioeventfd_write"]);
    assert_eq!(trees.len(), 1, "a function without a stack has no tree");
    let tree = &trees[0];
    assert_eq!((tree.function.as_str(), tree.samples), ("irqfd_wakeup", 3));
    let roots: Vec<_> = tree.roots.iter().map(|root| (root.name.as_str(), root.samples)).collect();
    assert_eq!(roots, [("do_syscall_64", 2), ("vfio_msihandler", 1)]);
    let inner = &tree.roots[0].calls[0].calls[0].calls[0];
    assert_eq!((inner.name.as_str(), inner.calls.len()), ("irqfd_wakeup", 0));
}

#[test]
fn a_tree_is_printed_with_forks_indented() {
    let text = trees(TRACE, &["irqfd_wakeup"])[0].to_string();
    assert!(text.contains("      2  do_syscall_64\n         eventfd_write\n"), "{text}");
}

#[test]
fn invalid_text_has_no_stacks() {
    assert_eq!(trees("=> irqfd_wakeup\n\n=> \n", &["irqfd_wakeup"]), []);
    assert_eq!(trees("<stack trace>\n => \n", &["irqfd_wakeup"]), []);
}
