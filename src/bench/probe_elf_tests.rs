//! Properties of the embedded ELF image on which a loader relies.

use super::PROBE_ELF;
use super::probe_abi::*;

fn u16_at(at: usize) -> u64 {
    u16::from_le_bytes(PROBE_ELF[at..at + 2].try_into().unwrap()) as u64
}

fn u32_at(at: usize) -> u64 {
    u32::from_le_bytes(PROBE_ELF[at..at + 4].try_into().unwrap()) as u64
}

fn u64_at(at: usize) -> u64 {
    u64::from_le_bytes(PROBE_ELF[at..at + 8].try_into().unwrap())
}

/// (type, file offset, physical address, bytes in the file, bytes in memory)
fn segments() -> Vec<(u64, usize, u64, u64, u64)> {
    let table = u64_at(32) as usize;
    (0..u16_at(56) as usize)
        .map(|i| table + i * u16_at(54) as usize)
        .map(|at| (u32_at(at), u64_at(at + 8) as usize, u64_at(at + 24), u64_at(at + 32), u64_at(at + 40)))
        .collect()
}

/// The bytes of the image at a guest-physical address.
fn loaded(address: u64) -> usize {
    let (_, offset, base, ..) = *segments()
        .iter()
        .find(|s| s.0 == 1 && (s.2..s.2 + s.3).contains(&address))
        .expect("not in the file");
    offset + (address - base) as usize
}

#[test]
fn loads_between_its_base_and_its_control_area() {
    assert_eq!(&PROBE_ELF[..6], b"\x7fELF\x02\x01");
    let loads: Vec<_> = segments().into_iter().filter(|s| s.0 == 1).collect();
    assert_eq!(loads.iter().map(|s| s.2).min(), Some(IMAGE_BASE));
    assert!(loads.iter().all(|s| s.2 + s.4 <= IMAGE_LIMIT));
}

#[test]
fn has_one_pvh_note_that_points_into_the_image() {
    let notes: Vec<_> = segments().into_iter().filter(|s| s.0 == 4).collect();
    let [(_, at, _, size, _)] = notes[..] else { panic!("{} note segments", notes.len()) };
    assert_eq!((u32_at(at), u32_at(at + 4), u32_at(at + 8)), (4, 8, 18), "name, descriptor, PHYS32_ENTRY");
    assert_eq!(&PROBE_ELF[at + 12..at + 16], b"Xen\0");
    assert_eq!(size, 24);
    let entry = u64_at(at + 16);
    assert_eq!(PROBE_ELF[loaded(entry)], 0xfa, "the entry begins with CLI");
    assert_eq!(entry, u64_at(24), "the ELF entry is the PVH entry");
}

#[test]
fn tables_stand_where_a_host_that_starts_at_ring_3_expects_them() {
    assert_eq!(u64_at(loaded(PAGE_TABLES)), PAGE_TABLES + 0x1007);
    assert_eq!(u64_at(loaded(GDT) + 0x10), 0x00af_9b00_0000_ffff);
    assert_eq!(u64_at(loaded(GDT) + 0x30), 0x00af_fb00_0000_ffff);
    for cpu in 0..MAX_CPUS as u64 {
        let tss = TSS + cpu * TSS_STRIDE;
        assert_eq!(u64_at(loaded(GDT) + 0x40 + 16 * cpu as usize) >> 16 & 0xff_ffff, tss);
        assert_eq!(u64_at(loaded(tss) + 4), RING0_STACKS + 0x1000 * (cpu + 1));
        assert_eq!(u16_at(loaded(tss) + 102), 104);
    }
    let gate = |vector: usize| {
        let (low, middle) = (u64_at(loaded(IDT) + vector * 16), u32_at(loaded(IDT) + vector * 16 + 4) >> 16);
        (low & 0xffff | middle << 16, low >> 40 & 0xff, low >> 16 & 0xffff)
    };
    assert_eq!(gate(0x40), (STUBS + 0x40 * 64, 0x8e, 0x10));
    assert_eq!(gate(3), (STUBS + 3 * 64, 0xee, 0x10));
    // LEA 1(%rdi), %eax: the first instruction of ring 3.
    assert_eq!(&PROBE_ELF[loaded(RING3_ENTRY)..][..3], b"\x8d\x47\x01");
}
