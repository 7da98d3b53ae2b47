//! What Intel's KVM does with a kick and a completion: the functions that its source names, seen at work.
//!
//! Runs in the Intel lab (docs/lab.md); `scripts/test intel` starts it.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod counted;
mod guest;
mod posted;
mod probe;

/// Ends a test that is not on an Intel KVM, in one line that says so.
#[macro_export]
macro_rules! need_intel {
    () => {
        $crate::need_machine!();
        if !std::path::Path::new("/sys/module/kvm_intel").exists() {
            println!("skipped: this is not Intel's KVM: run it in its lab, as scripts/test does");
            return;
        }
    };
}
