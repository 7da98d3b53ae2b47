"""The rate of this host's time-stamp counter, which no file shows to everybody."""

import ctypes
import mmap
import platform
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")


def tsc_khz(seconds=0.1):
    """None where it is not available: another processor, or a host that lets nobody make code."""
    if platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(CODE)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def both():
        # Of some pairs the one that was read fastest: nothing came in between.
        pairs = [(time.monotonic_ns(), read(), time.monotonic_ns()) for _ in range(10)]
        before, ticks, after = min(pairs, key=lambda pair: pair[2] - pair[0])
        return (before + after) // 2, ticks

    begin, first = both()
    time.sleep(seconds)
    end, last = both()
    return (last - first) * 1_000_000 // (end - begin)
