# Boot sector of the Intel lab: asks the BIOS for the memory map, reads kernel, initramfs and PVH block by ATA PIO to where
# bootdisk.py says, and jumps to the kernel's 32-bit PVH entry. There is no boot loader to install and no menu to wait for.
        .equ once, 0x5000               # below 1 MiB, which Linux leaves alone: still there after a reset
        .equ map, 0x9000                # the BIOS's memory map, entries of 24 bytes
        .equ block, 0x800000            # struct hvm_start_info, made by bootdisk.py
        .equ block_map_entries, 0x30
        .equ block_entry, 0xffc         # the kernel's entry, behind what PVH defines

        .code16
        .globl _start
_start: cli
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        # A machine that comes back here has reset itself: that is the end of it, not a new start.
        cmpl $0x4c414221, once
        je off
        movl $0x4c414221, once
        mov $map, %di
        xor %ebx, %ebx
        xor %bp, %bp
1:      mov $0xe820, %eax
        mov $0x534d4150, %edx
        mov $20, %ecx
        movl $0, 20(%di)
        int $0x15
        jc 2f
        inc %bp
        add $24, %di
        test %ebx, %ebx
        jnz 1b
2:      mov %bp, entries
        in $0x92, %al                   # A20
        or $2, %al
        and $0xfe, %al
        out %al, $0x92
        cli
        lgdt gdtr
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmp $8, $flat

off:    mov $0x8900, %dx                # Bochs ends when it reads this word there
        mov $word, %si
        mov $8, %cx
        rep outsb
        hlt
word:   .ascii "Shutdown"

        .code32
flat:   mov $16, %ax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        cld
        mov $0x3f6, %dx                 # no interrupts from the disk
        mov $2, %al
        out %al, %dx
        mov $parts, %esi
part:   lodsl                           # sectors
        test %eax, %eax
        jz start
        mov %eax, %ebp
        lodsl                           # the first of them
        mov %eax, %ebx
        lodsl                           # where to
        mov %eax, %edi
command:
        mov $0x1f7, %edx
1:      in (%dx), %al
        test $0x80, %al
        jnz 1b
        mov $0xf6, %dl
        mov %ebx, %eax
        shr $24, %eax
        or $0xe0, %al
        out %al, %dx
        mov $0xf2, %dl
        mov $128, %eax                  # sectors by one command
        cmp %eax, %ebp
        ja 2f
        mov %ebp, %eax
2:      mov %eax, %ecx
        out %al, %dx
        inc %edx
        mov %ebx, %eax
        out %al, %dx
        inc %edx
        shr $8, %eax
        out %al, %dx
        inc %edx
        shr $8, %eax
        out %al, %dx
        mov $0xf7, %dl
        mov $0x20, %al                  # READ SECTORS
        out %al, %dx
        add %ecx, %ebx
        sub %ecx, %ebp
sector: mov $0xf7, %dl
1:      in (%dx), %al
        and $0x88, %al
        cmp $8, %al
        jne 1b
        push %ecx
        mov $0xf0, %dl
        mov $256, %ecx
        rep insw
        pop %ecx
        loop sector
        test %ebp, %ebp
        jnz command
        jmp part

start:  mov $block, %ebx
        mov entries, %ecx
        mov %ecx, block_map_entries(%ebx)
        jmp *block_entry(%ebx)

        .align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word gdtr - gdt - 1
        .long gdt
entries: .long 0

        .org 0x188                      # bootdisk.py writes here: sectors, first sector, address; ended by 0
parts:  .fill 40, 1, 0
        .org 510
        .word 0xaa55
