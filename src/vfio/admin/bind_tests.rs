use super::*;
use crate::vfio::testing::host_tree::Tree;

const OVERRIDE: &str = "sys/bus/pci/devices/0000:00:03.0/driver_override";

fn nvme() -> Bdf {
    "00:03.0".parse().unwrap()
}

fn tree(driver: Option<&str>) -> Tree {
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), driver);
    tree.driver("nvme");
    tree.driver(VFIO_PCI);
    tree
}

fn override_of(tree: &Tree) -> String {
    fs::read_to_string(tree.path(OVERRIDE)).unwrap().trim().to_owned()
}

#[test]
fn bound_and_given_back_to_the_driver_it_had() {
    let tree = tree(Some("nvme"));
    let host = tree.kernel("nvme", None);
    let nvme_driver = Some("nvme".to_owned());
    assert_eq!(bind(&host, nvme()).unwrap(), Bound { before: nvme_driver.clone(), changed: true });
    assert_eq!(host.driver(nvme()).as_deref(), Some(VFIO_PCI));
    assert_eq!(bind(&host, nvme()).unwrap(), Bound { before: nvme_driver.clone(), changed: false });
    assert_eq!(unbind(&host, nvme()).unwrap(), nvme_driver);
    assert_eq!((host.driver(nvme()), override_of(&tree)), (nvme_driver, String::new()));
}

#[test]
fn a_device_that_had_no_driver_gets_none_back() {
    let tree = tree(None);
    let host = tree.kernel("nvme", None);
    assert_eq!(bind(&host, nvme()).unwrap(), Bound { before: None, changed: true });
    assert_eq!(unbind(&host, nvme()).unwrap(), None);
}

#[test]
fn a_refused_bind_leaves_the_device_with_its_driver() {
    let tree = tree(Some("nvme"));
    let host = tree.kernel("nvme", Some(VFIO_PCI));
    let error = bind(&host, nvme()).unwrap_err();
    let expected = "the driver vfio-pci did not take 0000:00:03.0: see dmesg; it is bound to nvme again";
    assert_eq!(error.to_string(), expected);
    assert_eq!((host.driver(nvme()).as_deref(), &*override_of(&tree)), (Some("nvme"), ""));
}

#[test]
fn an_impossible_switch_is_refused_before_anything_changes() {
    let tree = Tree::new();
    tree.device("0000:00:03.0", None, Some("nvme"));
    let host = tree.host();
    assert!(matches!(bind(&host, nvme()), Err(VfioError::NoIommu(_))));
    let tree = Tree::new();
    tree.device("0000:00:03.0", Some(1), Some("nvme"));
    let host = tree.host();
    assert!(matches!(bind(&host, nvme()), Err(VfioError::NoVfioPci)));
    let error = unbind(&host, nvme()).unwrap_err().to_string();
    assert_eq!(
        error,
        "0000:00:03.0 is bound to the driver nvme, not to vfio-pci: there is nothing to unbind"
    );
    assert_eq!(override_of(&tree), "");
}

#[test]
fn a_device_that_a_vmm_has_open_is_not_taken_from_it() {
    let tree = tree(Some(VFIO_PCI));
    fs::create_dir_all(tree.path("proc/77/fd")).unwrap();
    std::os::unix::fs::symlink("/dev/vfio/1", tree.path("proc/77/fd/5")).unwrap();
    let error = unbind(&tree.kernel("nvme", None), nvme()).unwrap_err();
    assert!(matches!(error, VfioError::Busy { .. }), "{error}");
}

#[test]
fn a_bind_that_was_interrupted_half_way_does_not_lose_the_former_driver() {
    for again in [true, false] {
        let tree = tree(None);
        let host = tree.kernel("nvme", None);
        note(&host, nvme(), Some("nvme"));
        fs::write(tree.path(OVERRIDE), VFIO_PCI).unwrap();
        let before = Some("nvme".to_owned());
        if again {
            assert_eq!(bind(&host, nvme()).unwrap(), Bound { before: before.clone(), changed: true });
        }
        assert_eq!(unbind(&host, nvme()).unwrap(), before, "bound again first: {again}");
        assert_eq!((host.driver(nvme()), override_of(&tree)), (before, String::new()));
    }
}
