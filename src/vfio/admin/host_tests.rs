use super::*;
use crate::vfio::testing::host_tree::{Tree, config_with_msix};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

#[test]
fn a_device_is_described_with_its_group_and_who_else_is_in_it() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(7), Some("nvme"));
    tree.device("0000:00:04.0", Some(7), None);
    tree.device("0000:00:05.0", None, Some("e1000e"));
    let all = tree.host().devices().unwrap();
    assert_eq!(all.len(), 3);
    let group = Group { id: "7".into(), others: vec![(bdf("00:04.0"), None)] };
    let driver = Some("nvme".to_owned());
    let id = (0x1b36, 0x0010);
    let expected =
        HostDevice { bdf: bdf("00:03.0"), id, class: 0x01_0802, driver, group: Some(group), msix: Some(65) };
    assert_eq!(all[0], expected);
    assert_eq!(class_name(all[0].class), "NVMe storage");
    assert_eq!(all[2].group, None);
}

#[test]
fn class_codes_that_say_nothing_are_told_from_those_that_are_not_in_the_list() {
    let names = [0x00_ff00, 0x00_0000, 0xff_0000, 0x01_0802, 0x0d_0000].map(class_name);
    assert_eq!(names, ["unclassified", "unclassified", "no class", "NVMe storage", "other"]);
}

#[test]
fn an_absent_device_is_named() {
    let error = Tree::new().host().device(bdf("00:09.0")).unwrap_err();
    assert_eq!(error.to_string(), "no PCI device 0000:00:09.0: `doorbell vfio list` shows all devices");
}

#[test]
fn a_config_space_that_is_cut_short_says_nothing_of_msix() {
    let config = config_with_msix(2048);
    assert_eq!(msix_vectors(&config), Some(2048));
    assert_eq!(msix_vectors(&config[..64]), None, "what a user without root sees");
    assert_eq!(msix_vectors(&config[..67]), None);
    assert_eq!(msix_vectors(&[]), None);
}

#[test]
fn variants_of_vfio_pci_do_not_hinder_the_others_of_their_group() {
    let blocks =
        [None, Some("vfio-pci"), Some("mlx5_vfio_pci"), Some("pcieport"), Some("e1000e")].map(blocks_binding);
    assert_eq!(blocks, [false, false, false, false, true]);
}
