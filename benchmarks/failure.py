"""Why a case gave no figures: an exception or a lost process, told as a status and a reason in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.record import Status

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)
_REFUSED_BY_TORCH = re.compile(
    r"inference ?(tensor|mode)|requires? grad|grad_fn|leaf variable|tensor\.detach|deepcopy protocol", re.IGNORECASE
)
"""torch has no class for "this cannot be done in this gradient mode"; its messages name what they are about."""


class Failure(Exception):
    """A case that cannot be measured. `arm` is the arm that was running, where the failing step has several."""

    def __init__(self, status: Status, reason: str, arm: str | None = None) -> None:
        super().__init__(status, reason, arm)
        self.status: Status = status
        self.reason = reason
        self.arm = arm

    @classmethod
    def of(cls, error: BaseException, arm: str | None = None) -> Failure:
        """The failure that `error`, raised by a step, amounts to."""
        if isinstance(error, Failure):
            return cls(error.status, error.reason, error.arm or arm)
        if is_out_of_memory(error):
            return cls("out_of_memory", describe(error), arm)
        refused = isinstance(error, RuntimeError) and _REFUSED_BY_TORCH.search(str(error))
        if refused or isinstance(error, NotImplementedError):
            return cls("unsupported", describe(error), arm)
        return cls("crashed", describe(error), arm)


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError, torch.OutOfMemoryError, and the plain RuntimeError that torch's CPU allocator raises."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def describe(error: BaseException) -> str:
    """The error in one line of at most about 300 characters, with the file and line that raised it."""
    text = " ".join(str(error).split())
    text = f"{text[:300]}..." if len(text) > 300 else text
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        place = f" ({Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"
