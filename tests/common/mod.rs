//! Guests of a few instructions.
#![allow(dead_code)] // Not every test uses all of it.

use doorbell::machine::layout;

const LOAD: u32 = 0x10_0000;

/// An ELF with a PVH note whose code starts at 1 MiB, in 32-bit protected mode without paging.
pub fn elf(code: &[u8]) -> Vec<u8> {
    const EHDR: u64 = 64;
    const PHDR: u64 = 56;
    let note_at = EHDR + 2 * PHDR;
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD.to_le_bytes());
    let code_at = note_at + note.len() as u64;

    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [u64::from(LOAD), EHDR, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0; 4]);
    for half in [EHDR as u16, PHDR as u16, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for (kind, at, address, len) in
        [(1u32, code_at, u64::from(LOAD), code.len() as u64), (4, note_at, 0, note.len() as u64)]
    {
        elf.extend(kind.to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        for word in [at, address, address, len, len, 4] {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.extend(&note);
    elf.extend(code);
    elf
}

/// mov dx, PORT; mov al, VALUE; out dx, al
pub fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// Sleep enable, type S5.
const SLEEP_S5: u8 = 1 << 5 | layout::SLEEP_TYPE_S5 << 2;

/// Turns the machine off.
pub fn power_off() -> Vec<u8> {
    out(layout::SLEEP_CONTROL_PORT, SLEEP_S5)
}

/// A guest that prints "R", then echoes what it reads, and turns itself off at "Q".
pub fn echo() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'R', 0xee, // mov al, 'R'; out dx, al
        0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
        0xec, 0xa8, 0x01, // in al, dx; test al, 1
        0x74, 0xfb, // jz -5
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, 0xee, // in al, dx; out dx, al
        0x3c, b'Q', // cmp al, 'Q'
        0x75, 0xed, // jne again
    ];
    code.extend(power_off());
    code
}
