# From the PVH entry (or SIPI) to ring 3, and the start of ring 3. Ring 0 is kept short, because it may be emulated.

.section .note.Xen, "a", @note
        .balign 4
        .long   4, 8, 18                                # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   pvh_entry

.section .text.entry, "ax", @progbits
# Every CPU starts ring 3 here; EDI is its index. It is the first code of .text, so its address is RING3_ENTRY.
.code64
ring3_entry:
        lea     1(%rdi), %eax
        shl     $15, %eax
        lea     ring3_stacks(%rax), %rsp
        xor     %ebp, %ebp
        call    ring3_main
        ud2

# 32-bit protected mode, no paging, EBX = hvm_start_info.
.code32
.globl pvh_entry
pvh_entry:
        cli
        cld
        mov     %ebx, pvh_start_info
        xor     %edi, %edi
        lgdtl   gdt_pointer
# EDI = CPU.
enter_long:
        mov     $0x620, %eax                            # PAE, OSFXSR, OSXMMEXCPT
        mov     %eax, %cr4
        mov     $TABLES, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        mov     $0x900, %eax                            # EFER: LME, NXE
        xor     %edx, %edx
        wrmsr
        mov     $0x80050033, %eax
        mov     %eax, %cr0
        ljmpl   $0x10, $1f
.code64
1:      lidt    idt_pointer
        mov     %edi, %eax
        shl     $4, %eax
        add     $0x40, %eax
        ltr     %ax
        mov     $0x2b, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     $ring3_frame, %esp
        iretq

# A CPU starts here after SIPI. This code is copied to TRAMPOLINE; real mode, CS = TRAMPOLINE >> 4.
.section .rodata.trampoline, "a", @progbits
.globl trampoline, trampoline_end
.code16
trampoline:
        cli
        cld
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   TRAMPOLINE + (2f - trampoline)
        mov     %cr0, %eax
        or      $1, %eax
        mov     %eax, %cr0
        ljmpl   $0x08, $ap_entry
        .balign 4
2:      .word   0x7f
        .long   TABLES + 0x7000
trampoline_end:

.section .text.entry, "ax", @progbits
.code32
ap_entry:
        mov     $0x18, %eax
        mov     %eax, %ds
        mov     0xfee00020, %edi                        # local APIC ID
        shr     $24, %edi
        jmp     enter_long

.code64
.section .bss.stacks, "aw", @nobits
        .balign 4096
ring3_stacks:
        .skip   4 * 0x8000
.section .bss.start_info, "aw", @nobits
        .balign 8
.globl pvh_start_info
pvh_start_info:
        .skip   8
.text
