use super::*;
use crate::vfio::testing::host_tree::Tree;

const DEVICE: &str = "sys/devices/pci0000:00/0000:00:03.0";

/// A machine with an NVMe disk of one partition.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("nvme"));
    for (at, name, number) in [("nvme0n1", "nvme0n1", "259:0"), ("nvme0n1/nvme0n1p1", "nvme0n1p1", "259:1")] {
        let dir = format!("{DEVICE}/nvme/nvme0/{at}");
        tree.file(&format!("{dir}/dev"), format!("{number}\n"));
        tree.link(&format!("sys/class/block/{name}"), &dir);
    }
    tree
}

fn answer(tree: &Tree) -> String {
    check(&tree.host(), "00:03.0".parse().unwrap()).map_or_else(|e| e.to_string(), |()| "free".into())
}

#[test]
fn a_disk_that_nobody_uses_is_free() {
    assert_eq!(answer(&tree()), "free");
}

#[test]
fn a_mounted_partition_keeps_the_disk() {
    let tree = tree();
    tree.file("proc/self/mountinfo", "30 22 259:1 / /srv/data rw - ext4 /dev/nvme0n1p1 rw\n");
    let expected = "0000:00:03.0 is in use on this host (/dev/nvme0n1p1 is mounted on /srv/data): \
                    unmount it (umount /srv/data), then try again";
    assert_eq!(answer(&tree), expected);
    tree.file("proc/self/mountinfo", "30 22 0:44 / /srv rw shared:9 - btrfs /dev/nvme0n1 rw\n");
    assert!(
        answer(&tree).contains("/dev/nvme0n1 is mounted on /srv"),
        "a file system with a number of its own"
    );
    tree.file("proc/self/mountinfo", "30 22 8:1 / /srv rw - ext4 /dev/sda1 rw\n");
    assert_eq!(answer(&tree), "free");
}

#[test]
fn swap_and_holders_keep_the_disk() {
    let tree = tree();
    tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 8 0 -2\n");
    assert!(answer(&tree).contains("/dev/nvme0n1p1 is swap"));
    tree.file("proc/swaps", "");
    tree.file(&format!("{DEVICE}/nvme/nvme0/nvme0n1/holders/dm-0/x"), "");
    assert!(answer(&tree).contains("/dev/nvme0n1 is part of dm-0"));
}

#[test]
fn a_namespace_with_multipath_is_found_through_its_subsystem() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("nvme"));
    tree.file(&format!("{DEVICE}/nvme/nvme0/state"), "live");
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    tree.file(&format!("{subsystem}/nvme0n1/dev"), "259:0");
    tree.link(&format!("{subsystem}/nvme0"), &format!("{DEVICE}/nvme/nvme0"));
    tree.link("sys/class/block/nvme0n1", &format!("{subsystem}/nvme0n1"));
    tree.file("proc/self/mountinfo", "30 22 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n");
    assert!(answer(&tree).contains("/dev/nvme0n1 is mounted"));
}

#[test]
fn a_network_interface_must_be_down() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("e1000e"));
    tree.file(&format!("{DEVICE}/net/eth0/flags"), "0x1003\n");
    tree.link("sys/class/net/eth0", &format!("{DEVICE}/net/eth0"));
    assert!(answer(&tree).contains("network interface eth0 is up): take it down"));
    tree.file(&format!("{DEVICE}/net/eth0/flags"), "0x1002\n");
    assert_eq!(answer(&tree), "free");
}

#[test]
fn an_interface_in_another_network_namespace_is_in_use() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("e1000e"));
    std::fs::create_dir(tree.path(&format!("{DEVICE}/net"))).unwrap();
    assert!(answer(&tree).contains("belongs to another network namespace): move it back (ip -n "));
}

#[test]
fn a_device_with_virtual_functions_is_in_use() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("ixgbe"));
    tree.file(&format!("{DEVICE}/sriov_numvfs"), "0\n");
    assert_eq!(answer(&tree), "free");
    tree.file(&format!("{DEVICE}/sriov_numvfs"), "4\n");
    assert!(answer(&tree).contains("it has 4 virtual functions): remove them (echo 0 > "));
}

#[test]
fn a_character_device_that_somebody_has_open_is_in_use() {
    let opens = |process: &str, tree: &Tree, node: &str| {
        let link = tree.path(&format!("proc/{process}/fd/3"));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(node, link).unwrap();
    };
    let tree = tree();
    for (class, name, node) in [
        ("nvme", "nvme0", "/dev/nvme0"),
        ("nvme-generic", "ng0n1", "/dev/ng0n1"),
        ("drm", "card1", "/dev/dri/card1"),
    ] {
        tree.file(&format!("{DEVICE}/{class}/{name}/dev"), "1:1\n");
        tree.link(&format!("sys/class/{class}/{name}"), &format!("{DEVICE}/{class}/{name}"));
        assert_eq!(answer(&tree), "free");
        opens("77", &tree, node);
        assert!(
            answer(&tree).contains(&format!("({node} is open): end the program that has it open")),
            "{}",
            answer(&tree)
        );
        opens("77", &tree, "/dev/null");
    }
    opens(&std::process::id().to_string(), &tree, "/dev/nvme0");
    assert_eq!(answer(&tree), "free", "ourselves");
}
