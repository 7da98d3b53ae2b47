# Ring 0: one stub per vector, 64 bytes apart, at STUBS. Software KVM emulates ring 0 at about a microsecond an
# instruction and without xsave, so these stay a few instructions long and free of SSE; the EOI store goes to the
# LAPIC's low alias to be one instruction. EOI is always stored: hardware needs it (software KVM does not mind).

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
        push    %rax                                    # timestamped: TSC first, then the count that shows it
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
        push    %rax                                    # INTx: reading the ISR register lowers the line, so
        mov     ISR_TABLE + (vec - INTX) * 8, %rax      # it stands before the EOI
        movzbl  (%rax), %eax
        and     $1, %eax                                # bit 0: a queue; bit 1 would be the configuration
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

# --- services: RAX chooses, RCX carries the value or count, RDX the port, RSI text. Results in RAX.
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
# HLT unless the word at RSI is RCX no longer. The gate has cleared IF and STI opens it only after the next
# instruction, so an interrupt between the look and the HLT still ends it.
halt_if:
        cmp     %rcx, (%rsi)
        jne     1f
        sti
        hlt
1:      iretq
# The CPU's end.
stop:   hlt
        jmp     stop

# --- exceptions: leave what is known in TRAP, say so, stop. In text mode also end the machine.
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
