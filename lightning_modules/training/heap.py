"""Let the process keep the memory that it frees, so that a step on a CPU need not fetch it from the system again."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

KEPT = 2**30
"""The bytes of a block, and of free memory at the end of the heap, that are kept at most."""


def keep_freed_memory(size: int = KEPT) -> bool:
    """Let glibc's malloc keep freed memory for the next allocation, in all of this process.

    By default, blocks of 32 MB and more go back to the system when they are freed, and so does the end of the heap.
    The activations of a step are such blocks: with images of 96 pixels, a step on a CPU spends a tenth to a fifth of
    its time on fetching the same memory page by page (docs/performance.md). The results are the same. The process takes
    about a tenth more memory at its peak, and gives less of it back between its steps.

    The command line does this by itself. What the environment says about malloc is left alone, and other C libraries
    than glibc are, too.

    Args:
        size: The bytes of a block, and of free memory at the end of the heap, that are kept at most; below 2^31.

    Returns:
        Whether malloc was told.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if told or platform.libc_ver()[0] != "glibc":
        return False
    malloc = ctypes.CDLL(None).mallopt
    return all([malloc(M_MMAP_THRESHOLD, size), malloc(M_TRIM_THRESHOLD, size)])
