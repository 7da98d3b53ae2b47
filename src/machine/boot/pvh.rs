//! The PVH boot protocol (xen/include/public/arch-x86/hvm/start_info.h): a 32-bit entry and one structure that lists
//! command line, memory and initrd.

use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::elf::{start_info::hvm_memmap_table_entry, start_info::hvm_modlist_entry};
use linux_loader::loader::{KernelLoader, elf::start_info::hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::{Boot, Image, load_initrd, low_end, memory_map, write_cmdline};
use crate::machine::MachineError;
use crate::machine::cpu_state::Entry;
use crate::machine::layout::boot;
use crate::machine::memory::Ram;

const START_MAGIC: u32 = 0x336e_c578;
const TYPE_RAM: u32 = 1;
const TYPE_RESERVED: u32 = 2;
/// The longest command line that Linux accepts (COMMAND_LINE_SIZE without the NUL). With a longer one it stops without
/// a message, and an ELF image has no header field for the limit.
const CMDLINE_MAX: u64 = 2047;

pub(super) fn load(request: &Boot<'_>, image: &mut impl Image) -> Result<Entry, MachineError> {
    let &Boot { ram, size, kernel, initrd, cmdline } = request;
    let loaded = Elf::load(ram, None, image, Some(GuestAddress(boot::HIGH_MEMORY))).map_err(|e| {
        kernel.error(format!("cut short, broken, or too big for {} MiB of RAM ({e})", size >> 20))
    })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(
            kernel.error("an ELF image without a PVH entry; Linux needs CONFIG_PVH, or use its bzImage")
        );
    };
    if loaded.kernel_end > low_end(size) {
        return Err(kernel.error(format!("too big for {} MiB of RAM; raise --memory", size >> 20)));
    }

    write_cmdline(ram, cmdline, CMDLINE_MAX)?;
    let memmap = memory_map(size);
    let memmap_at = boot::PVH_START_INFO + size_of::<hvm_start_info>().next_multiple_of(8) as u64;
    let modules_at = memmap_at + (memmap.len() * size_of::<hvm_memmap_table_entry>()) as u64;
    let mut info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        cmdline_paddr: boot::CMDLINE,
        rsdp_paddr: boot::ACPI,
        memmap_paddr: memmap_at,
        memmap_entries: memmap.len() as u32,
        ..Default::default()
    };
    if let Some(path) = initrd {
        let (paddr, size) = load_initrd(ram, path, loaded.kernel_end, low_end(size))?;
        info.nr_modules = 1;
        info.modlist_paddr = modules_at;
        write(ram, modules_at, hvm_modlist_entry { paddr, size, ..Default::default() })?;
    }
    for (slot, range) in memmap.iter().enumerate() {
        let entry = hvm_memmap_table_entry {
            addr: range.base,
            size: range.len,
            type_: if range.usable { TYPE_RAM } else { TYPE_RESERVED },
            reserved: 0,
        };
        write(ram, memmap_at + (slot * size_of::<hvm_memmap_table_entry>()) as u64, entry)?;
    }
    write(ram, boot::PVH_START_INFO, info)?;
    Ok(Entry::Pvh { eip: entry.0 as u32 })
}

fn write<T: ByteValued>(ram: &Ram, at: u64, value: T) -> Result<(), MachineError> {
    ram.write_obj(value, GuestAddress(at)).map_err(|e| MachineError::Host(e.to_string()))
}
