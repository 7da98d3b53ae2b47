use super::*;
use crate::machine::memory;

fn read(ram: &Ram, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Returns the whole table at `at`, after checking its checksum.
fn table_at(ram: &Ram, at: u64) -> Vec<u8> {
    let len = u32::from_le_bytes(read(ram, at + 4, 4).try_into().unwrap());
    let table = read(ram, at, len as usize);
    assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0, "checksum of {:?}", &table[..4]);
    table
}

fn tables(cpus: u8) -> Vec<Vec<u8>> {
    let ram = memory::allocate(128 << 20, Default::default()).unwrap();
    write(&ram, cpus).unwrap();
    let rsdp = read(&ram, boot::ACPI, 36);
    assert!(rsdp.starts_with(b"RSD PTR "));
    let xsdt = table_at(&ram, u64_at(&rsdp, 24));
    let mut all: Vec<_> = xsdt[36..].chunks(8).map(|entry| table_at(&ram, u64_at(entry, 0))).collect();
    all.push(table_at(&ram, u64_at(&all[0], 140)));
    all
}

#[test]
fn every_table_is_reachable_from_the_rsdp() {
    let found: Vec<_> = tables(1).iter().map(|t| String::from_utf8_lossy(&t[..4]).into_owned()).collect();
    assert_eq!(found, ["FACP", "APIC", "MCFG", "DSDT"]);
}

#[test]
fn madt_lists_each_vcpu_once() {
    for cpus in [1, 2, 16] {
        let madt = tables(cpus)[1].clone();
        let mut at = 44;
        let mut ids = Vec::new();
        while at < madt.len() {
            if madt[at] == 0 {
                ids.push(madt[at + 3]);
            }
            at += usize::from(madt[at + 1]);
        }
        assert_eq!(at, madt.len());
        assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
    }
}

#[test]
fn tables_for_most_vcpus_fit() {
    tables(u8::MAX);
}

#[test]
fn the_dsdt_names_the_panic_port_as_stock_kernels_know_it() {
    let dsdt = tables(1).pop().unwrap();
    let at = dsdt.windows(9).position(|bytes| bytes == b"QEMU0001\0").unwrap();
    // IO descriptor (ACPI 6.4, 6.4.2.5): 0x47, 16 bits decoded, minimum and maximum base, alignment, length.
    let io = [0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1];
    assert!(dsdt[at..].windows(8).any(|bytes| bytes == io));
}
