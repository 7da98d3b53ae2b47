//! The Linux boot protocol, 64-bit entry (Documentation/arch/x86/boot.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{KernelLoader, bzimage::BzImage};
use vm_memory::{Bytes, GuestAddress};

use super::{Boot, Image, load_initrd, low_end, memory_map, write_cmdline};
use crate::machine::MachineError;
use crate::machine::cpu_state::Entry;
use crate::machine::layout::boot;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// `type_of_loader` of a loader without an assigned ID.
const LOADER_UNDEFINED: u8 = 0xff;
/// `xloadflags`: the kernel has the 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// The offset of the 64-bit entry in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// The oldest protocol with `init_size` and `xloadflags`: 2.12, Linux 3.8.
const PROTOCOL_2_12: u16 = 0x020c;

pub(super) fn load(request: &Boot<'_>, image: &mut impl Image) -> Result<Entry, MachineError> {
    let &Boot { ram, size, kernel, initrd, cmdline } = request;
    let start = GuestAddress(boot::HIGH_MEMORY);
    let too_big =
        || kernel.error(format!("cut short, or too big for {} MiB of RAM; raise --memory", size >> 20));
    let loaded = BzImage::load(ram, Some(start), image, Some(start)).map_err(|_| too_big())?;
    let mut hdr = loaded.setup_header.ok_or_else(|| kernel.error("has no setup header"))?;
    let (version, flags) = (hdr.version, hdr.xloadflags);
    if version < PROTOCOL_2_12 || flags & XLF_KERNEL_64 == 0 {
        return Err(kernel.error("has no 64-bit entry: a 64-bit Linux 3.8 or later is needed"));
    }
    let end = needed_end(&hdr, loaded.kernel_end);
    if end > low_end(size) {
        return Err(too_big());
    }

    write_cmdline(ram, cmdline, u64::from(hdr.cmdline_size))?;
    hdr.type_of_loader = LOADER_UNDEFINED;
    hdr.cmd_line_ptr = boot::CMDLINE as u32;
    if let Some(path) = initrd {
        let limit = low_end(size).min(u64::from(hdr.initrd_addr_max) + 1);
        let (base, len) = load_initrd(ram, path, end, limit)?;
        hdr.ramdisk_image = base as u32;
        hdr.ramdisk_size = len as u32;
    }

    let mut params = boot_params { hdr, acpi_rsdp_addr: boot::ACPI, ..Default::default() };
    let map = memory_map(size);
    for (slot, range) in map.iter().enumerate() {
        let kind = if range.usable { E820_RAM } else { E820_RESERVED };
        params.e820_table[slot] = boot_e820_entry { addr: range.base, size: range.len, r#type: kind };
    }
    params.e820_entries = map.len() as u8;
    ram.write_obj(params, GuestAddress(boot::ZERO_PAGE)).map_err(|e| MachineError::Host(e.to_string()))?;
    Ok(Entry::Linux64 { rip: loaded.kernel_load.0 + ENTRY_64 })
}

/// Returns the end of the memory that the kernel uses before it reads the memory map. It unpacks itself to its
/// preferred address, or to its load address if that is higher, and uses `init_size` bytes there.
fn needed_end(hdr: &setup_header, loaded_end: u64) -> u64 {
    let (preferred, init_size) = (hdr.pref_address, u64::from(hdr.init_size));
    preferred.max(boot::HIGH_MEMORY).saturating_add(init_size).max(loaded_end)
}
