//! What newer kernels do for VFIO: iommufd with a character device for each device, and vectors that are added one by one.
//!
//! Debian 12's kernel has neither: `scripts/lab --kernel newer` has the second, `scripts/lab --kernel iommufd` both.

use doorbell::observe::kernel::KernelEvidence;
use serde_json::Value;

use super::guest::{Guest, device, doorbell};
use super::{FIND, FIO};

/// What `doorbell vfio inspect` says of the device.
fn inspect(bdf: &str) -> Value {
    let output = doorbell().args(["vfio", "inspect", "--json", bdf]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs fio on the passed-through disk in a guest with two vCPUs, which takes a vector for each and one for the controller;
/// the hits of these functions of the kernel meanwhile, absent ones as none.
fn hits<const N: usize>(nvme: &str, functions: [&str; N]) -> Option<[u64; N]> {
    let evidence = match KernelEvidence::start(&functions) {
        Ok(evidence) => evidence,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let job = format!(
        "{FIND}; {FIO} --name=check --filename=$N --rw=randwrite --size=1M --iodepth=4 --verify=crc32c --verify_fatal=1 || exit 1"
    );
    Guest::new(&job).cpus(2).arg("--vfio", nvme).run().passed();
    let counts = evidence.stop().unwrap();
    println!("{counts}");
    Some(functions.map(|name| counts.get(name).unwrap_or(0)))
}

#[test]
fn vectors_are_added_one_by_one_where_the_kernel_can() {
    let Some(nvme) = device("NVME") else { return };
    let flags = inspect(&nvme)["irqs"][2]["flags"].as_str().unwrap().to_owned();
    if flags.contains("no vectors can be added later") {
        println!(
            "skipped: this kernel cannot add vectors while MSI-X is on (Linux 6.5 can): scripts/lab --kernel newer"
        );
        return;
    }
    let Some([added, freed]) = hits(&nvme, ["pci_msix_alloc_irq_at", "pci_msix_free_irq"]) else { return };
    // The first comes with MSI-X itself; the two of the queues are added, once each, and none is armed twice to make room.
    assert_eq!(added, 2);
    assert_eq!(freed, 0);
}

#[test]
fn ram_is_mapped_through_iommufd_where_the_kernel_has_it() {
    let Some(nvme) = device("NVME") else { return };
    let through = inspect(&nvme)["through"].as_str().unwrap().to_owned();
    if through != "iommufd" {
        println!(
            "skipped: this kernel has no iommufd, the device is in a {through}: scripts/lab --kernel iommufd"
        );
        return;
    }
    let functions = [
        "iommufd_ioas_map",
        "vfio_df_ioctl_bind_iommufd",
        "vfio_df_ioctl_attach_pt",
        "vfio_file_set_kvm",
        "vfio_iommu_type1_ioctl",
        "vfio_group_fops_open",
    ];
    let Some([mapped, bound, attached, told, type1, groups]) = hits(&nvme, functions) else { return };
    assert!(mapped >= 1, "guest RAM is mapped");
    assert_eq!((bound, attached), (1, 1));
    assert!(told >= 1, "KVM's VFIO device gets the character device");
    assert_eq!((type1, groups), (0, 0), "neither a container nor a group is used");
}
