# Page tables, GDT, TSS and IDT, complete at build time: every address is known when the guest is built. So a host can
# start a CPU directly in ring 3 without preparing anything, and the PVH entry only has to load the registers.
# boot.rs includes this file and sets the symbols in capitals; link.ld places it at IMAGE_BASE.

.section .tables, "aw", @progbits
# --- page tables. 0 to 3 GiB: 2 MiB pages, present, writable, user, accessed, dirty (0xe7).
#     3 to 4 GiB, where devices live: the same with PCD and PWT (0xff).
        .quad   TABLES + 0x1000 + 7
        .fill   511, 8, 0
        .quad   TABLES + 0x2000 + 7, TABLES + 0x3000 + 7, TABLES + 0x4000 + 7, TABLES + 0x5000 + 7
        .fill   508, 8, 0
        .set    page, 0
        .rept   1536
        .if     page == LAPIC_ALIAS
        .quad   TABLES + 0x6000 + 7
        .else
        .quad   page + 0xe7
        .endif
        .set    page, page + 0x200000
        .endr
        .rept   512
        .quad   page + 0xff
        .set    page, page + 0x200000
        .endr
# The aliases of the local APIC and the IOAPIC.
        .quad   0xfee0007f, 0xfec0007f
        .fill   510, 8, 0

# --- GDT in Linux's shape: kernel 0x10/0x18, user 0x33/0x2b. With CS 0x1b and SS 0x23 software KVM emulates IRETQ.
        .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00af9b000000ffff
        .quad   0x00cf93000000ffff
        .quad   0x00cffb000000ffff
        .quad   0x00cff3000000ffff
        .quad   0x00affb000000ffff
        .quad   0
        .set    tss, TSS
        .rept   4
        .quad   0x67 | ((tss & 0xffffff) << 16) | (0x89 << 40) | ((tss >> 24 & 0xff) << 56)
        .quad   0
        .set    tss, tss + 0x80
        .endr
        .fill   16, 8, 0
# --- one TSS per CPU: RSP0 is the end of the CPU's page of RING0_STACKS; no I/O bitmap.
        .set    stack, RING0_STACKS + 0x1000
        .rept   4
        .long   0
        .quad   stack
        .fill   90, 1, 0
        .word   104
        .fill   24, 1, 0
        .set    stack, stack + 0x1000
        .endr
# --- the operands of LGDT and LIDT, and the frame by which every CPU enters ring 3.
.globl gdt_pointer, idt_pointer, ring3_frame
gdt_pointer:
        .word   0x7f
        .quad   TABLES + 0x7000
idt_pointer:
        .word   0xfff
        .quad   TABLES + 0x8000
        .balign 8
ring3_frame:
        .quad   RING3_ENTRY, 0x33, 0x202, 0, 0x2b
        .balign 4096

# --- IDT: interrupt gates (type 14) to ring 0, one stub per vector. Ring 3 may call only INT3.
        .set    vec, 0
        .rept   256
        .set    stub, STUBS + vec * 64
        .if     vec == 3
        .quad   (stub & 0xffff) | (0x10 << 16) | (0xee << 40) | ((stub >> 16 & 0xffff) << 48)
        .else
        .quad   (stub & 0xffff) | (0x10 << 16) | (0x8e << 40) | ((stub >> 16 & 0xffff) << 48)
        .endif
        .quad   0
        .set    vec, vec + 1
        .endr
