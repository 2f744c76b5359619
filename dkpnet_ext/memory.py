"""The C library's memory: freed arrays stay with the process."""

from __future__ import annotations

import ctypes
import sys

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_HUGE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for processes that do the same again and again, such as training and counting.

    By default arrays above 32 MB (at first 128 KB) are mapped from the kernel one by one and given back when they are
    freed, and so is the heap's free end: every step then faults the same pages in again, and the kernel zeroes them. With
    both thresholds out of reach a step takes them from the heap. Threads share that heap: one of their own holds at most
    64 MB. The process keeps its peak for good.

    Returns:
        Whether it was done: False where the C library is not glibc, or refuses.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt")):
        return False
    options = ((_M_MMAP_THRESHOLD, _HUGE), (_M_TRIM_THRESHOLD, _HUGE), (_M_ARENA_MAX, 1))
    return all([libc.mallopt(option, value) == 1 for option, value in options])
