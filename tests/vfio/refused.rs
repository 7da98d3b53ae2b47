//! What a host cannot give: one sentence with the fix, the documented exit code, and the device as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::guest::{Guest, device, doorbell, image};
use super::refusal::tells;
use super::{FIND, FIO};

/// A user without rights.
const NOBODY: u32 = 65534;

fn run(bdf: &str) -> Command {
    let mut command = doorbell();
    command.args(["run", "--memory", "128M", "--vfio", bdf, "--kernel"]).arg(image().join("vmlinux"));
    command
}

fn vfio(verb: &str, bdf: &str) -> Command {
    let mut command = doorbell();
    command.args(["vfio", verb, bdf]);
    command
}

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

fn works(command: Command) {
    let output = output(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

fn sysfs(bdf: &str, name: &str) -> PathBuf {
    PathBuf::from("/sys/bus/pci/devices").join(bdf).join(name)
}

fn link_name(bdf: &str, name: &str) -> String {
    let target = fs::read_link(sysfs(bdf, name));
    target.map_or("-".into(), |target| target.file_name().unwrap().to_string_lossy().into_owned())
}

/// Driver and override: what a refusal must not change.
fn bound(bdf: &str) -> (String, String) {
    (link_name(bdf, "driver"), fs::read_to_string(sysfs(bdf, "driver_override")).unwrap())
}

#[test]
fn an_address_without_a_device_is_told() {
    if device("NVME").is_none() {
        return;
    }
    let nowhere = "0000:7f:1f.7";
    for command in [run(nowhere), vfio("irq-test", nowhere), vfio("bind", nowhere)] {
        tells(&output(command), 4, &["no PCI device 0000:7f:1f.7", "doorbell vfio list"]);
    }
}

#[test]
fn a_group_with_a_host_driver_in_it_is_refused_until_the_neighbour_is_given_too() {
    let (Some(edu), Some(neighbour)) = (device("EDU"), device("EDU_NEIGHBOUR")) else { return };
    let before = (bound(&edu), bound(&neighbour));
    assert_eq!(before.1.0, "virtio-pci", "the host's own driver");
    let group = link_name(&edu, "iommu_group");
    let said =
        format!("IOMMU group {group} of {edu} is not viable: {neighbour} is bound to virtio-pci; bind these");
    for command in [run(&edu), vfio("irq-test", &edu), vfio("inspect", &edu)] {
        tells(&output(command), 3, &[&said, "doorbell vfio bind"]);
    }
    let said =
        format!("{neighbour} is bound to the driver virtio-pci: run `doorbell vfio bind {neighbour}` first");
    tells(&output(run(&neighbour)), 3, &[&said]);
    assert_eq!((bound(&edu), bound(&neighbour)), before);
    works(vfio("bind", &neighbour));
    works(vfio("irq-test", &edu));
    works(vfio("unbind", &neighbour));
    assert_eq!(bound(&neighbour).0, "virtio-pci");
    tells(&output(run(&edu)), 3, &["is not viable"]);
}

#[test]
fn a_device_of_a_vm_that_runs_is_not_taken_from_it() {
    let Some(nvme) = device("NVME") else { return };
    let before = bound(&nvme);
    let job = format!(
        "{FIND}; echo @here >/dev/console; {FIO} --name=on --filename=$N --rw=randread --time_based --runtime=1000"
    );
    let running = Guest::new(&job).arg("--vfio", &nvme).until("@here");
    let said = format!("{nvme} is used by another process already");
    for command in [run(&nvme), vfio("irq-test", &nvme), vfio("unbind", &nvme)] {
        tells(&output(command), 4, &[&said, "end that one first"]);
    }
    assert_eq!(bound(&nvme), before);
    running.kill();
    works(vfio("irq-test", &nvme));
}

#[test]
fn a_user_without_rights_is_told_which_file_and_how_much_memory() {
    let Some(nvme) = device("NVME") else { return };
    // It changes who may open the device and /dev/kvm: on a machine of its own only.
    if std::env::var_os("DOORBELL_LAB").is_none() {
        return println!("skipped: this is not the lab");
    }
    let as_nobody = |mut command: Command| {
        let limit = libc::rlimit { rlim_cur: 8 << 20, rlim_max: 8 << 20 };
        // SAFETY: setrlimit is async-signal-safe.
        unsafe {
            command.uid(NOBODY).gid(NOBODY).pre_exec(move || {
                match libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        output(command)
    };
    let before = bound(&nvme);
    let group = format!("/dev/vfio/{}", link_name(&nvme, "iommu_group"));
    fs::set_permissions("/dev/kvm", PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions("/dev/vfio/vfio", PermissionsExt::from_mode(0o666)).unwrap();
    tells(&as_nobody(vfio("irq-test", &nvme)), 3, &["no permission for", &group, "chown"]);
    if let Some(neighbour) = device("EDU_NEIGHBOUR") {
        tells(&as_nobody(vfio("bind", &neighbour)), 3, &["no permission for", "run as root"]);
        assert_eq!(bound(&neighbour).0, "virtio-pci");
    }
    chown(&group, Some(NOBODY), None).unwrap();
    let needs = ["guest RAM of 128 MiB must be locked", "the limit is 8 MiB", "`ulimit -l 131072`"];
    tells(&as_nobody(run(&nvme)), 3, &needs);
    works({
        let mut command = vfio("irq-test", &nvme);
        command.uid(NOBODY).gid(NOBODY);
        command
    });
    chown(&group, Some(0), None).unwrap();
    assert_eq!(bound(&nvme), before);
}
