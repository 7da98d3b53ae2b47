use super::*;

#[test]
fn a_line_tells_state_finding_and_fix() {
    let there = Item::new("io_uring", false, true, "yes").or("never shown");
    assert_eq!(there.line(10), "present  io_uring    yes");
    let needed = Item::new("/dev/kvm", true, false, "no such device").or("load kvm");
    assert_eq!(needed.line(10), "MISSING  /dev/kvm    no such device; load kvm");
    assert!(Item::new("IOMMU", false, false, "none").line(1).starts_with("absent "));
}

#[test]
fn kernel_releases_are_compared_as_numbers() {
    assert_eq!(host::parse_release("6.1.0-56-cloud-amd64"), (6, 1));
    assert_eq!(host::parse_release("6.19-rc1"), (6, 19));
    assert!(host::parse_release("6.18.44") < (6, 19) && host::parse_release("7.0.1") > (6, 19));
    assert_eq!(host::parse_release("?"), (0, 0));
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = kvm::items().iter().chain(&host::items()).map(|item| item.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
