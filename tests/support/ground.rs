//! Where machine tests can run: on a /dev/kvm with hardware behind it, which the lab has, too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ends a test that cannot run here, in one line that says why. `scripts/test` counts it as skipped.
#[macro_export]
macro_rules! need_machine {
    () => {
        if let Some(reason) = $crate::support::ground::missing() {
            println!("skipped: {reason}");
            return;
        }
    };
}

/// Why no Linux guest can run here; `None` if one can.
pub fn missing() -> Option<String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return Some(format!("no usable /dev/kvm ({error}): run it in the lab, as scripts/test does"));
    }
    // A software KVM (kvm_pvm) may run on a CPU that shows svm.
    if !["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).exists()) {
        return Some(
            "this /dev/kvm has no hardware behind it: run it in the lab, as scripts/test does".into(),
        );
    }
    let kernel = guest_directory().join("bzImage");
    (!kernel.exists()).then(|| format!("no {}: run guest-images/linux/build", kernel.display()))
}

/// Whether this is the lab, where all is slower.
pub fn in_lab() -> bool {
    std::env::var_os("DOORBELL_LAB").is_some()
}

/// A deadline that fits the ground: `seconds` on hardware.
pub fn deadline(seconds: u64) -> Duration {
    Duration::from_secs(seconds * if in_lab() { 6 } else { 1 })
}

/// The doorbell under test.
pub fn doorbell() -> PathBuf {
    std::env::var_os("DOORBELL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_doorbell").into(), PathBuf::from)
}

/// Where `bzImage`, `vmlinux` and `initrd` are.
pub fn guest_directory() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/guest"));
    std::env::var_os("DOORBELL_GUEST").map_or_else(default, PathBuf::from)
}

/// Whether other processes than `ours` run VMs: counts of the whole host's kernel would be theirs, too.
pub fn other_vms(ours: u32) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|process| process.file_name() != *ours.to_string()).any(|process| {
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| target.ends_with("anon_inode:kvm-vm"))
    })
}
