"""The disk that the Intel lab boots from: boot sector (boot.S), PVH start block, kernel and initramfs, one after another."""

import os
import struct

SECTOR = 512
CYLINDER = 16 * 63 * SECTOR  # Bochs wants whole ones
PARTS = 0x188  # boot.S: `parts`, `map`, `block`, `block_entry`
MAP = 0x9000
BLOCK = 0x800000
BLOCK_ENTRY = 0xFFC
INITRD = 0x8000000  # far above the kernel, which starts at 16 MiB and has some 60
PT_LOAD, PT_NOTE, XEN_ELFNOTE_PHYS32_ENTRY = 1, 4, 18


def write(path, boot_sector, vmlinux, initrd, command_line):
    """`boot_sector` are boot.S's bytes; the others but `command_line` are paths."""
    with open(vmlinux, "rb") as file:
        entry, address, kernel = _flat(file.read())
    with open(initrd, "rb") as file:
        archive = file.read()
    parts = [(_start_block(entry, len(archive), command_line), BLOCK), (kernel, address), (archive, INITRD)]
    sector = bytearray(boot_sector)
    with open(path, "wb") as out:
        out.seek(SECTOR)
        for number, (data, where) in enumerate(parts):
            sectors = -(-len(data) // SECTOR)
            struct.pack_into("<III", sector, PARTS + 12 * number, sectors, out.tell() // SECTOR, where)
            out.write(data)
            out.seek(-len(data) % SECTOR, os.SEEK_CUR)
        out.truncate(-(-out.tell() // CYLINDER) * CYLINDER)
        out.seek(0)
        out.write(sector)


def _flat(elf):
    """The kernel's entry, and what it loads in one piece: (entry, physical address, bytes)."""
    table, size, count = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", elf, table + number * size) for number in range(count)]
    loads = [(address, offset, length) for kind, _, offset, _, address, length, _, _ in headers if kind == PT_LOAD]
    low = min(address for address, _, _ in loads)
    image = bytearray(max(address + length for address, _, length in loads) - low)
    for address, offset, length in loads:
        image[address - low : address - low + length] = elf[offset : offset + length]
    notes = [(offset, length) for kind, _, offset, _, _, length, _, _ in headers if kind == PT_NOTE]
    return _entry(elf, notes), low, image


def _entry(elf, notes):
    for at, length in notes:
        end = at + length
        while at < end:
            name_size, size, kind = struct.unpack_from("<III", elf, at)
            name, at = elf[at + 12 : at + 12 + name_size], at + 12 + (name_size + 3 & ~3)
            if kind == XEN_ELFNOTE_PHYS32_ENTRY and name == b"Xen\0":
                return int.from_bytes(elf[at : at + size], "little")
            at += size + 3 & ~3
    raise ValueError("this kernel has no PVH entry")


def _start_block(entry, initrd_size, command_line):
    """struct hvm_start_info (xen/include/public/arch-x86/hvm/start_info.h) and what it points to, a page in all."""
    modules, text = BLOCK + 0x100, command_line.encode() + b"\0"
    if len(text) > BLOCK_ENTRY - 0x200:
        raise ValueError("the kernel's command line is too long")
    block = bytearray(0x1000)
    # magic, version, flags, modules; then addresses of modules, command line, RSDP, memory map; its entries (boot.S), reserved
    struct.pack_into("<IIIIQQQQII", block, 0, 0x336EC578, 1, 0, 1, modules, BLOCK + 0x200, 0, MAP, 0, 0)
    struct.pack_into("<QQQQ", block, 0x100, INITRD, initrd_size, 0, 0)
    block[0x200 : 0x200 + len(text)] = text
    struct.pack_into("<I", block, BLOCK_ENTRY, entry)
    return block
