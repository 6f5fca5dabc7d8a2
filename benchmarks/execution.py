"""What a call is wrapped in beside its mode: torch.compile around the model, autocast around the whole step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.failure import Failure
from benchmarks.modes import Mode, Run, Step
from benchmarks.record import EAGER
from benchmarks.workers import begin_anew

BACKEND = "inductor"
"""What torch.compile hands its graphs to; this is its own default."""

COMPILER = ("torch._dynamo", "torch._inductor.compile_fx")
"""What launches of workers import once for all."""

NO_COMPILER = "torch.compile needs a C++ compiler, and none was found; install g++ or clang++, or name one in CXX"


def compiled(mode: Mode) -> Mode:
    """`mode` around the compiled model: `compiled = torch.compile(model)` once, then `with torch.no_grad(): compiled(x)` in each call."""

    def bind(module: nn.Module, run: Run) -> Step:
        compiled_model: Callable[..., Any] = cache(partial(torch.compile, backend=BACKEND))
        return mode.bind(module, lambda model: run(compiled_model(model)))

    return replace(mode, bind=bind)


def autocast(step: Step, device: str, dtype: torch.dtype) -> Step:
    """`step` within an autocast of its own in each call, a backward pass in it included.

    Autocast keeps the copies that it casts of parameters until its block ends, unless in inference mode: not from one call to the next.
    """
    kind = torch.device(device).type

    def cast() -> Any:
        with torch.autocast(kind, dtype):
            return step()

    return cast


@contextmanager
def compiling(execution: str, arms: int) -> Iterator[None]:
    """Where models are compiled, none is yet at the start. torch.compile limits how often it compiles one code, which `arms` share here."""
    if execution == EAGER:
        yield
        return
    from torch._dynamo import config  # takes a second

    torch.compiler.reset()
    with config.patch(recompile_limit=arms * config.recompile_limit, fail_on_recompile_limit_hit=True):
        yield


def compile_step(step: Step) -> float:
    """Calls a compiled step for the first time; returns what that took, in seconds. A worker's time then begins anew.

    Raises Failure `unsupported` where torch.compile fails.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import InvalidCxxCompiler

    start = time.perf_counter()
    try:
        step()
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        missing = isinstance(getattr(error, "inner_exception", error), InvalidCxxCompiler)
        raise (Failure("unsupported", NO_COMPILER) if missing else Failure.of(error)) from error
    seconds = time.perf_counter() - start
    begin_anew()
    return seconds


def compile_anew(step: Step) -> float:
    """The same with empty caches. Raises Failure `unsupported` where nothing was compiled, too."""
    from torch._inductor.utils import fresh_cache

    before = compilations()
    with TemporaryDirectory() as folder, fresh_cache(dir=folder):
        seconds = compile_step(step)
    if compilations() == before:
        raise Failure("unsupported", "torch.compile finds nothing in it to compile")
    return seconds


def compilations() -> int:
    """How many graphs this process has compiled."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0
