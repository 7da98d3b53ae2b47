/* Two faults of Debian's bochs 3.1+dfsg-1, without which it boots no Linux and loses posted interrupts. build-bochs checks that it is
 * that package before it makes this; LD_PRELOAD brings it into the emulator, where it puts a jump at the entry of two functions.
 *
 * 1. long_idiv, the emulator's 64-bit IDIV, was built so that it loses the dividend's low half: each quotient is wrong.
 * 2. VMX_Posted_Interrupt_Processing (Intel SDM 3, 30.6) keeps the highest vector that is requested in eight bits. With none requested
 *    (the target took all of them at a VM entry, before the notification came) the -1 of highest_priority_int becomes vector 255, which is
 *    pending from then on and is above every vector that comes later: the guest never gets another interrupt.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Of that build: where VMX_Posted_Interrupt_Processing goes on after it asked for the highest vector. */
enum { AFTER_THE_QUESTION = 0x1cf };

static char *posted_interrupt_processing;

struct wide {
    uint64_t low;
    int64_t high;
};

static void long_idiv(struct wide *quotient, int64_t *remainder, const struct wide *dividend, int64_t divisor)
{
    __int128 number = (__int128)((unsigned __int128)(uint64_t)dividend->high << 64 | dividend->low);
    __int128 result = number / divisor;
    *remainder = (int64_t)(number % divisor);
    quotient->low = (uint64_t)result;
    quotient->high = (int64_t)(result >> 64);
}

/* Eight words with a bit per vector; -1 if there is none. */
static int highest_priority_int(const void *apic, const uint32_t *words)
{
    (void)apic;
    for (int word = 7; word >= 0; word--) {
        if (words[word] != 0) return 32 * word + 31 - __builtin_clz(words[word]);
    }
    /* 0 is no vector either, and it is not above what is pending. */
    return __builtin_return_address(0) == posted_interrupt_processing + AFTER_THE_QUESTION ? 0 : -1;
}

static void *function(const char *name)
{
    void *entry = dlsym(RTLD_DEFAULT, name);
    if (entry == NULL) {
        fprintf(stderr, "bochs31: this Bochs has no %s\n", name);
        exit(1);
    }
    return entry;
}

static void replace(const char *name, void *by)
{
    /* mov $by, %rax; jmp *%rax */
    unsigned char jump[12] = { 0x48, 0xb8, [10] = 0xff, 0xe0 };
    memcpy(jump + 2, &by, sizeof by);
    char *entry = function(name), *page = (char *)((uintptr_t)entry & ~(uintptr_t)4095);
    size_t length = (size_t)(entry + sizeof jump - page);
    if (mprotect(page, length, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
        perror("bochs31: mprotect");
        exit(1);
    }
    memcpy(entry, jump, sizeof jump);
    mprotect(page, length, PROT_READ | PROT_EXEC);
}

__attribute__((constructor)) static void correct(void)
{
    posted_interrupt_processing = function("_ZN8BX_CPU_C31VMX_Posted_Interrupt_ProcessingEh");
    replace("_Z9long_idivP7Bit128sPlPKS_l", long_idiv);
    replace("_ZNK15bx_local_apic_c20highest_priority_intEPKj", highest_priority_int);
}
