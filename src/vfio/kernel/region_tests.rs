use super::*;

/// A struct vfio_region_info: argsz, flags, index, capability offset, size, offset; then `rest`.
fn info(flags: u32, size: u64, rest: &[u32]) -> Vec<u8> {
    let cap = if rest.is_empty() { 0 } else { 32 };
    let mut bytes: Vec<u8> = [0, flags, 2, cap].into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend([size, 2 << 40].into_iter().flat_map(u64::to_ne_bytes));
    bytes.extend(rest.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

const RW_MMAP: u32 = 7;

#[test]
fn a_plain_region_is_mappable_as_a_whole() {
    let region = Region::parse(&info(RW_MMAP, 0x4000, &[]));
    let areas = vec![Area { offset: 0, len: 0x4000 }];
    let expected =
        Region { index: 2, size: 0x4000, offset: 2 << 40, flags: RW_MMAP, areas, ..Region::default() };
    assert_eq!(region, expected);
    assert_eq!(Region::parse(&info(3, 0x100, &[])).areas, []);
}

#[test]
fn sparse_areas_and_the_capability_behind_them_are_read() {
    // Sparse, next at 80: areas 0x1000+0x1000 and one beyond the region, which is dropped.
    let rest = [1 | 1 << 16, 80, 2, 0, 0x1000, 0, 0x1000, 0, 0x3000, 0, 0x9000, 0, 3 | 1 << 16, 0];
    let region = Region::parse(&info(RW_MMAP | 8, 0x4000, &rest));
    assert_eq!(region.areas, [Area { offset: 0x1000, len: 0x1000 }]);
    assert!(region.sparse && region.msix_mappable);
}

#[test]
fn a_chain_that_loops_or_ends_early_ends() {
    let region = Region::parse(&info(RW_MMAP | 8, 0x4000, &[9, 32]));
    assert_eq!(region.areas.len(), 1);
    let cut = Region::parse(&info(RW_MMAP | 8, 0x4000, &[1, 0, 1000, 0, 0, 0]));
    assert_eq!((cut.sparse, cut.areas.len()), (true, 0));
    assert_eq!(Region::parse(&[]), Region::default());
}

#[test]
fn flags_and_indices_have_names() {
    assert_eq!(region_flags(7), "readable, writable, mappable");
    assert_eq!(irq_flags(9), "by eventfd, no vectors can be added later");
    assert_eq!(irq_flags(0), "none");
    assert_eq!((region_name(0).as_str(), region_name(7).as_str()), ("BAR 0", "config space"));
    assert_eq!((irq_name(2), irq_name(9)), ("MSI-X", "device specific"));
}
