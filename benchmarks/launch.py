"""What each launch imports first: from then on everything that its workers leave behind is its own, and ends with it.

Nothing else imports this: it changes the process that does. A worker's children go to the launch when the worker ends, those with a session
of their own too (Linux), and neither Ctrl-C nor a closed terminal reaches a launch, which ends with the process that started it: at once while
it still imports (Linux), and later in order, with all that its workers have left.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import signal
import sys
import warnings
from contextlib import suppress
from multiprocessing import forkserver

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _end_children(launch: int) -> None:
    from benchmarks.workers import end_children  # which imports torch

    if os.getpid() == launch:  # what was forked from it inherits this
        end_children(launch)


def _import(name: str) -> None:
    with suppress(Exception):  # a library that is broken: the tasks that need it will say so
        importlib.import_module(name)


forkserver.__import__ = _import  # type: ignore[attr-defined]  # by which the launch imports what is to be there
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a pool of compilers in each worker would not end with it in peace
os.setsid()
if sys.platform == "linux":
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.register_at_fork(before=lambda: libc.prctl(_PR_SET_PDEATHSIG, 0))
atexit.register(_end_children, os.getpid())
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")  # of such a child
