# Ring 0: one stub per vector, 64 bytes apart, at STUBS. Software KVM emulates ring 0 at about a microsecond an
# instruction and without xsave, so the stubs have few instructions and no SSE. The EOI store goes to the LAPIC's low
# alias, so that it is one instruction. Every stub stores EOI: hardware needs it, and software KVM ignores it.

.section .stubs, "ax", @progbits
.code64
        .set    vec, 0
        .rept   256
        .set    slot, VECTORS + vec * 64
        .if     vec == 3
        jmp     *services(, %rax, 8)                    # INT3: the services of ring 0
        .elseif vec == 2 || vec == 0xff
        lock incq slot                                  # NMI, spurious: count, no EOI
        iretq
        .elseif vec < 32
        movq    $(vec + 1), TRAP                        # exceptions stop the guest
        jmp     trapped
        .elseif vec >= STAMPED && vec < INTX
        push    %rax                                    # timestamped: the TSC before the count
        push    %rdx
        rdtsc
        mov     %eax, slot + 8
        mov     %edx, slot + 12
        lock incq slot
        movl    $0, LAPIC_ALIAS + 0xb0
        pop     %rdx
        pop     %rax
        iretq
        .elseif vec >= INTX && vec < INTX_END
        push    %rax                                    # INTx: reading the ISR register lowers the pin, so
        mov     ISR_TABLE + (vec - INTX) * 8, %rax      # it comes before the EOI
        movzbl  (%rax), %eax
        and     $1, %eax                                # bit 0: a queue; bit 1: the configuration
        lock addq %rax, slot + 16
        lock incq slot
        movl    $0, LAPIC_ALIAS + 0xb0
        pop     %rax
        iretq
        .else
        lock incq slot                                  # plain
        movl    $0, LAPIC_ALIAS + 0xb0
        iretq
        .endif
        .org    (vec + 1) * 64, 0xcc
        .set    vec, vec + 1
        .endr

# --- services: RAX is the service, RCX the value or count, RDX the port, RSI text. The result is in RAX.
.section .text.services, "ax", @progbits
        .balign 8
services:
        .quad   out8, out16, out32, in8, in16, in32, text_out, halt_if, stop
out8:   mov     %ecx, %eax
        out     %al, %dx
        iretq
out16:  mov     %ecx, %eax
        out     %ax, %dx
        iretq
out32:  mov     %ecx, %eax
        out     %eax, %dx
        iretq
in8:    xor     %eax, %eax
        in      %dx, %al
        iretq
in16:   xor     %eax, %eax
        in      %dx, %ax
        iretq
in32:   in      %dx, %eax
        iretq
text_out:
        cld
        rep outsb
        iretq
# HLT unless the word at RSI differs from RCX. The gate has cleared IF, and STI takes effect only after the next
# instruction, so an interrupt between the comparison and HLT still ends the HLT.
halt_if:
        cmp     %rcx, (%rsi)
        jne     1f
        sti
        hlt
1:      iretq
# Stops the CPU for ever.
stop:   hlt
        jmp     stop

# --- exceptions: record them in TRAP, report them, stop. In text mode also end the machine.
trapped:
        mov     %cr2, %rax
        mov     %rax, TRAP + 8
        pop     TRAP + 16
        pop     TRAP + 24
        pop     TRAP + 32
        pop     TRAP + 40
        movl    $3, CONTROL_STATE
        mov     CONTROL_TEXT_PORT, %edx
        test    %edx, %edx
        jz      1f
        mov     $trap_text, %rsi
        mov     $trap_text_end - trap_text, %ecx
        cld
        rep outsb
1:      cmpl    $0, CONTROL_MODE
        jne     2f
        mov     $0xf4, %edx
        mov     $0x7f, %eax
        out     %eax, %dx
2:      hlt
        jmp     2b
trap_text:
        .ascii  "{{\"probe\":1,\"event\":\"trap\"}}\n"
trap_text_end:
