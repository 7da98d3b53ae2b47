use proptest::prelude::*;

use std::io::Write;

use super::*;
use crate::machine::layout::{GIB, HIGH_RAM_START, LOW_RAM_END, MIB};

#[allow(clippy::duplicate_mod)] // The tests of vm have it, too.
#[path = "../../../tests/common/mod.rs"]
mod common;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn load_file(path: &Path) -> Result<Entry, MachineError> {
    let ram = memory::allocate(128 * MIB, Default::default()).unwrap();
    let (size, kernel) = (128 * MIB, &Kernel::File(path.into()));
    Boot { ram: &ram, size, kernel, initrd: None, cmdline: "console=ttyS0" }.load()
}

fn sentence(result: Result<Entry, MachineError>) -> String {
    match result {
        Err(error @ MachineError::File { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_map_covers_all_ram_once_and_never_the_hole() {
    for size in [128 * MIB, 3 * GIB, 3 * GIB + MIB, 8 * GIB] {
        let map = memory_map(size);
        assert!(map.windows(2).all(|w| w[0].base + w[0].len <= w[1].base), "{map:x?}");
        let usable: u64 = map.iter().filter(|r| r.usable).map(|r| r.len).sum();
        assert_eq!(usable, size - (boot::HIGH_MEMORY - boot::LOW_MEMORY_END));
        let hole = LOW_RAM_END..HIGH_RAM_START;
        assert!(!map.iter().any(|r| r.usable && hole.contains(&(r.base + r.len - 1))));
    }
}

#[test]
fn a_file_that_is_not_a_kernel_is_refused() {
    assert!(sentence(load_file(Path::new("/nonexistent/vmlinuz"))).contains("no such file"));
    assert!(sentence(load_file(Path::new("/"))).contains("directory"));
    assert!(sentence(load_file(file(b"").path())).contains("not a kernel"));
    assert!(sentence(load_file(file(&[7; 4096]).path())).contains("not a kernel"));
    assert!(sentence(load_file(file(b"\x7fELF").path())).contains("cut short"));
}

#[test]
fn a_bzimage_header_with_nothing_behind_is_refused() {
    let mut bytes = vec![0; 0x400];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    assert!(sentence(load_file(file(&bytes).path())).contains("kernel"));
}

#[test]
fn a_64_bit_kernel_that_needs_more_than_ram_is_refused() {
    let mut bytes = vec![0; 0x1000];
    bytes[0x1f1] = 1;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    bytes[0x236] = 1;
    bytes[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    bytes[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    bytes[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&(64 * MIB as u32).to_le_bytes());
    assert_eq!(load_file(file(&bytes).path()).unwrap(), Entry::Linux64 { rip: 0x10_0200 });
    bytes[0x260..0x264].copy_from_slice(&(128 * MIB as u32).to_le_bytes());
    assert!(sentence(load_file(file(&bytes).path())).contains("too big"));
}

#[test]
fn an_initrd_goes_to_the_top_and_never_onto_the_kernel() {
    let ram = memory::allocate(128 * MIB, Default::default()).unwrap();
    let initrd = file(&[5; 5000]);
    let (base, len) = load_initrd(&ram, initrd.path(), 64 * MIB, 128 * MIB).unwrap();
    assert_eq!((base, len), (128 * MIB - 8192, 5000));
    let error = load_initrd(&ram, initrd.path(), 128 * MIB - 4096, 128 * MIB).unwrap_err();
    assert!(error.to_string().contains("do not fit"), "{error}");
}

#[test]
fn a_long_command_line_is_refused() {
    let ram = memory::allocate(128 * MIB, Default::default()).unwrap();
    assert!(write_cmdline(&ram, &"x".repeat(2047), 2047).is_ok());
    assert!(write_cmdline(&ram, &"x".repeat(2048), 2047).is_err());
}

/// A little ELF with a PVH note, and the header of a bzImage with its kernel: each loads as it is.
fn images() -> [Vec<u8>; 2] {
    let mut bzimage = vec![0; 0x1000];
    bzimage[0x1f1] = 1;
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    bzimage[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    bzimage[0x211] = 1;
    bzimage[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    bzimage[0x236] = 1;
    bzimage[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    bzimage[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    bzimage[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    bzimage[0x260..0x264].copy_from_slice(&(64 * MIB as u32).to_le_bytes());
    [common::elf(&[0xf4; 64]), bzimage]
}

proptest! {
    /// Bytes of an image's headers are changed, and it is cut: it loads inside of RAM, or there is a sentence.
    #[test]
    fn any_image_loads_or_is_refused(
        which in 0..2usize,
        changes in prop::collection::vec((0..0x280usize, any::<u8>()), 0..12),
        words in prop::collection::vec((0..0x280usize, any::<u64>()), 0..3),
        len in prop_oneof![4 => Just(usize::MAX), 1 => 0..0x1000usize],
        initrd in prop::option::of(0..20_000usize),
    ) {
        let mut image = images()[which].clone();
        for (at, byte) in changes {
            image.get_mut(at).into_iter().for_each(|place| *place = byte);
        }
        for (at, word) in words {
            image.get_mut(at..at + 8).into_iter().for_each(|place| place.copy_from_slice(&word.to_le_bytes()));
        }
        image.truncate(len);
        let ram = memory::allocate(128 * MIB, Default::default()).unwrap();
        let initrd = initrd.map(|len| file(&vec![1; len]));
        let initrd = initrd.as_ref().map(|file| file.path());
        let (size, kernel) = (128 * MIB, &Kernel::Image(image.into()));
        match (Boot { ram: &ram, size, kernel, initrd, cmdline: "console=ttyS0" }).load() {
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().contains('\n') && error.to_string().len() > 10),
        }
    }
}
