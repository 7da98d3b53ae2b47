use super::*;
use crate::kvm::testing::FakeVm;
use crate::pci::Identity;
use crate::vfio::testing::device::FakeFd;

fn region(size: u64, areas: &[(u64, u64)]) -> Region {
    let areas = areas.iter().map(|&(offset, len)| Area { offset, len }).collect();
    Region { index: 0, size, flags: 7, areas, ..Region::default() }
}

fn trapped(table: u32, pba: u32, vectors: u16) -> Trapped {
    let place = |offset| BarOffset { bar: 0, offset };
    Trapped { table: place(table), pba: place(pba), vectors }
}

fn pages(areas: Vec<Area>) -> Vec<(u64, u64)> {
    areas.iter().map(|area| (area.offset, area.end())).collect()
}

#[test]
fn the_pages_of_table_and_pending_bits_are_cut_out() {
    let whole = region(0x8000, &[(0, 0x8000)]);
    assert_eq!(pages(direct(&whole, Some(trapped(0x2000, 0x3000, 65)))), [(0, 0x2000), (0x4000, 0x8000)]);
    assert_eq!(
        pages(direct(&whole, Some(trapped(0x7ff8, 0, 1)))),
        [(0x1000, 0x7000)],
        "a table across the end"
    );
    assert_eq!(pages(direct(&whole, None)), [(0, 0x8000)]);
    let all = region(0x1000, &[(0, 0x1000)]);
    assert_eq!(pages(direct(&all, Some(trapped(0, 0x800, 4)))), []);
}

#[test]
fn sparse_areas_are_kept_to_and_only_whole_pages_are_mapped() {
    let sparse = region(0x8000, &[(0x800, 0x2000), (0x6000, 0x1000)]);
    assert_eq!(pages(direct(&sparse, None)), [(0x1000, 0x2000), (0x6000, 0x7000)]);
    let hidden = Region { flags: 3, ..region(0x4000, &[(0, 0x4000)]) };
    assert_eq!(direct(&hidden, None), []);
}

#[test]
fn bars_keep_their_kind_their_size_and_their_prefetchable_bit() {
    let bars = [(0x4000, 0xc), (0, 0), (0x20, 1), (0x1000, 0), (0, 0), (0x1000, 4)];
    let mut config = ConfigSpace::new(Identity::default());
    let laid = lay_out(&FakeFd::new(bars, [0; 3], true), &mut config);
    let kinds: Vec<_> = laid.all().iter().map(|bar| (bar.index, bar.kind, bar.len)).collect();
    assert_eq!(
        kinds,
        [(0, BarKind::Memory64, 0x4000), (2, BarKind::Io, 0x20), (3, BarKind::Memory32, 0x1000)],
        "a 64-bit BAR 5 has no upper half and is left out"
    );
    config.write(0x10, &[0xff; 8]);
    assert_eq!((config.u32(0x10), config.u32(0x14)), (0xffff_c00c, 0xffff_ffff));
}

#[test]
fn a_bar_is_in_the_guest_where_it_is_mapped_and_nowhere_else() {
    let fd = FakeFd::new([(0x4000, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)], [0; 3], true);
    let vm = FakeVm::new();
    let mapped =
        MappedBars::new(&fd, Some(trapped(0x2000, 0x2800, 8)), MemorySlots::new(vm.clone())).unwrap();
    let window = |base| Window { bar: 0, space: Space::Mmio, base, len: 0x4000 };
    let shown = || mapped.shown().iter().map(|(_, r)| (r.guest, r.len)).collect::<Vec<_>>();
    mapped.map_into_guest(window(0xc000_0000)).unwrap();
    assert_eq!(shown(), [(0xc000_0000, 0x2000), (0xc000_3000, 0x1000)]);
    mapped.unmap(0);
    mapped.map_into_guest(window(0xd000_0000)).unwrap();
    assert_eq!(shown(), [(0xd000_0000, 0x2000), (0xd000_3000, 0x1000)]);
    assert_eq!(vm.memory().len(), 2);
    drop(mapped);
    assert_eq!(vm.memory(), []);
}
