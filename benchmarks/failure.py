"""Why a case gave no figures: an exception or a lost process, told as a status and a reason in one line."""

from __future__ import annotations

import re
from pathlib import Path
from traceback import extract_tb

import torch

from benchmarks.record import Status

_OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|"
    r"CU(BLAS|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
"""torch's CPU allocator and CUDA's libraries raise plain RuntimeErrors."""

_REFUSED_BY_TORCH = re.compile(
    r"inference tensor|leaf variable that requires grad|tensor that requires grad|"
    r"does not require grad and does not have a grad_fn|differentiated tensors does not require grad|"
    r"view was created in (no_grad|inference) mode|graph leaves\) support the deepcopy protocol|"
    r"set_storage is not allowed on a tensor created from \.data or \.detach|stateless API can't be used",
    re.IGNORECASE,
)
"""What torch says, as RuntimeErrors, of things that cannot be done in a gradient mode. It has no class for them."""

_NO_KERNEL = re.compile(
    r"Could not run 'aten::|not implemented for '|not currently implemented for the \w+ device|could not create a primitive|"
    r"Unsupported dtype \w+$|torch.compile does not support"
)
"""What torch says of operators that a dtype or a device lacks, as NotImplementedErrors, by which a user's class may mean anything; oneDNN; and
torch.compile of TorchScript."""

_COMPILER = ("torch._dynamo.exc", "torch._inductor.exc")
"""Where torch.compile's errors come from: it cannot compile the model here, or has done so too often."""

_ENDLESS = "FailOnRecompileLimitHit"
"""By its name: to import its class takes a second."""

_LONGEST = 300


class Failure(Exception):
    """A case that cannot be measured. `arm` is the mode that was running, where the failing task has several."""

    def __init__(self, status: Status, reason: str, arm: str | None = None) -> None:
        super().__init__(status, reason, arm)
        self.status: Status = status
        self.reason = reason
        self.arm = arm

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"

    @classmethod
    def of(cls, error: BaseException, arm: str | None = None) -> Failure:
        """The failure that `error`, raised by a step, amounts to."""
        if isinstance(error, Failure):
            return cls(error.status, error.reason, error.arm or arm)
        if is_out_of_memory(error):
            return cls("out_of_memory", describe(error), arm)
        if type(error).__name__ == _ENDLESS:
            return cls(
                "unsupported", "torch.compile compiles it anew in call after call, beyond its limit of recompilations", arm
            )
        if type(error).__module__ in _COMPILER:
            return cls("unsupported", f"torch.compile: {describe(error)}", arm)
        modal = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError)
        refused = cannot_be_had(error) or (modal and _REFUSED_BY_TORCH.search(_text(error)))
        return cls("unsupported" if refused else "crashed", describe(error), arm)


def cannot_be_had(error: BaseException) -> bool:
    """Whether torch has no kernel for a dtype or a device, or cannot compile it: in any mode, and not by the model's fault."""
    if type(error).__module__ in _COMPILER:
        return True
    return isinstance(error, RuntimeError) and _NO_KERNEL.search(_text(error)) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError, torch.OutOfMemoryError, and the plain RuntimeErrors that stand for either."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(_text(error)) is not None


def describe(error: BaseException) -> str:
    """The error in one line of at most about 350 printable characters, with the file and line that raised it."""
    text = "".join(character for character in " ".join(_text(error).split()) if character.isprintable())
    text = f"{text[:_LONGEST]}..." if len(text) > _LONGEST else text
    frames = extract_tb(error.__traceback__, limit=-1)
    place = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - a user's class may raise anything there
        return f"(its text cannot be had: {type(fault).__name__})"
