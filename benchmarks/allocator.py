"""glibc's allocator, set by `mallopt` for the life of this process: keep freed pages, or give them back at once."""

from __future__ import annotations

import ctypes
import os
import platform
import random

# malloc.h's names; the numbers are part of glibc's interface.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_LARGEST_INT = 2**31 - 1


def unavailable() -> str | None:
    """Why glibc's knobs do not work here, or None where they do."""
    if platform.libc_ver()[0] != "glibc":
        return f"glibc's mallopt is needed to keep pages, and this is {platform.system()} without it"
    other = preloaded()
    return None if other is None else f"{other} is preloaded, so glibc's mallopt has no effect"


def preloaded() -> str | None:
    """The allocator that takes glibc's place here, None where there is no other."""
    return next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in os.environ.get("LD_PRELOAD", "")), None)


def keep_pages() -> None:
    """`pages_kept`: no block is mapped on its own, nothing is trimmed, one arena: after warm-up, calls cause no page faults."""
    _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST_INT, _M_TOP_PAD: 16 * 1024 * 1024, _M_ARENA_MAX: 1})


def shift_heap(layout: random.Random) -> None:
    """Makes this process's heap another than that of its siblings, which all start as copies of one: a few blocks are never freed.

    Where blocks come to lie decides what is given back to the kernel, and so can change a call's time by half (Mytkowicz et al. 2009,
    Producing wrong data without doing anything obviously wrong, ASPLOS).
    """
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for _ in range(16):
        malloc(layout.randrange(64 * 1024))


def return_pages() -> None:
    """Freed blocks of 64 KiB and more leave the process at once: resident memory follows them.

    It costs page faults, so nothing is timed after this.
    """
    _mallopt(dict.fromkeys((_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD), 64 * 1024))


def release_free_pages() -> None:
    """Gives back the pages of small freed blocks as well, which `return_pages` keeps: every page that a call writes is then new."""
    if unavailable() is None:
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(settings: dict[int, int]) -> None:
    if unavailable() is None:
        libc = ctypes.CDLL(None)
        for parameter, value in settings.items():
            libc.mallopt(parameter, value)
