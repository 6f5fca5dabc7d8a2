"""Models that misbehave, each a function that `--model` takes, and what has to become of each."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any

import torch
from torch import nn

from benchmarks.modes import NO_GRAD, TRACKED

MEASURED = "measured"
CRASHED, BROKEN, UNSUPPORTED, NO_MEMORY, LATE = "crashed", "broken_contract", "unsupported", "out_of_memory", "timed_out"


@dataclass(frozen=True)
class Misbehaviour:
    """What `call` does in each forward, given the input and what a linear layer made of it, and the statuses that may come of it.

    It returns the output, or None for the layer's. `mode` is the one that misbehaves, None where all do.
    """

    call: Callable[..., Any]
    statuses: Collection[str]
    mode: str | None = None


class Model(nn.Module):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.calls = 0
        self.call = call

    def forward(self, values: torch.Tensor) -> Any:
        self.calls += 1
        output = self.layer(values)
        returned = self.call(self, values, output)
        return output if returned is None else returned


def _raises(error: BaseException, at_call: int = 1) -> Callable[..., None]:
    def call(model: Model, *_: Any) -> None:
        if model.calls >= at_call:
            raise error

    return call


def _replaces(owner: Any, name: str, value: Any) -> Callable[..., None]:
    return lambda *_: setattr(owner, name, value)


def _loops(*_: Any) -> None:
    while True:
        pass


def _loops_without_grad(*_: Any) -> None:
    while not torch.is_grad_enabled():
        pass


def _changes_grad_mode(*_: Any) -> None:
    torch.set_grad_enabled(not torch.is_grad_enabled())


def _changes_much(*_: Any) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.manual_seed(time.time_ns())
    random.seed(time.time_ns())
    os.chdir("/")
    os.environ["OMP_NUM_THREADS"] = "7"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("error")
    gc.disable()


def _prints(model: Model, *_: Any) -> None:
    if model.calls == 1:
        sys.stdout.write("x" * 50_000_000)
        os.write(2, b"y" * 50_000_000)


def _closes_standard_files(*_: Any) -> None:
    for file in (sys.stdin, sys.stdout, sys.stderr):
        file.close()


def _starts_threads_and_children(model: Model, *_: Any) -> None:
    if model.calls == 1:
        threading.Thread(target=threading.Event().wait).start()
        subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"], start_new_session=True)


def _returns_a_cycle(_: Any, __: Any, output: torch.Tensor) -> Any:
    cycle: list[Any] = [output]
    cycle.append(cycle)
    return cycle


CONTROL = "behaves"
MISBEHAVIOURS: dict[str, Misbehaviour] = {
    CONTROL: Misbehaviour(lambda _, __, output: output.relu(), {MEASURED}),
    "aborts": Misbehaviour(lambda *_: os.abort(), {CRASHED}),
    "segfaults": Misbehaviour(lambda *_: ctypes.string_at(0), {CRASHED}),
    "ends_its_process": Misbehaviour(lambda *_: os._exit(0), {CRASHED}),
    "leaves_the_program": Misbehaviour(_raises(SystemExit(0)), {CRASHED}),
    "interrupts": Misbehaviour(_raises(KeyboardInterrupt()), {CRASHED}),
    "sends_a_real_time_signal": Misbehaviour(lambda *_: os.kill(os.getpid(), signal.SIGRTMIN + 3), {CRASHED}),
    "loops": Misbehaviour(_loops, {LATE}),
    "loops_without_grad": Misbehaviour(_loops_without_grad, {LATE}, NO_GRAD.name),
    "asks_for_100_gb": Misbehaviour(lambda *_: torch.ones(25 * 10**9), {NO_MEMORY}),
    "fills_memory": Misbehaviour(lambda *_: [torch.empty(2**26) for _ in count()], {NO_MEMORY}),
    "raises": Misbehaviour(_raises(ValueError("no")), {CRASHED}),
    "raises_at_its_50th_call": Misbehaviour(_raises(ValueError("no"), 50), {CRASHED}),
    "returns_nan": Misbehaviour(lambda _, __, output: output * float("nan"), {MEASURED}),
    "draws": Misbehaviour(lambda _, __, output: output * torch.rand(8), {MEASURED}),
    "returns_the_time": Misbehaviour(lambda _, __, output: output + time.perf_counter_ns() % 9973, {BROKEN}, TRACKED.name),
    "changes_grad_mode": Misbehaviour(_changes_grad_mode, {BROKEN}, TRACKED.name),
    "changes_much_else": Misbehaviour(_changes_much, {MEASURED}),
    "prints": Misbehaviour(_prints, {MEASURED}),
    "closes_standard_files": Misbehaviour(_closes_standard_files, {MEASURED}),
    "starts_threads_and_children": Misbehaviour(_starts_threads_and_children, {MEASURED}),
    "replaces_no_grad": Misbehaviour(_replaces(torch, "no_grad", torch.enable_grad), {MEASURED, BROKEN}),
    "replaces_the_clock": Misbehaviour(_replaces(time, "perf_counter", lambda: 0.0), {MEASURED}),
    "deletes_parameters": Misbehaviour(lambda model, *_: model.layer._parameters.clear(), {CRASHED, BROKEN}),
    "frees_its_input": Misbehaviour(lambda _, values, __: values.untyped_storage().resize_(0), {CRASHED, BROKEN}),
    "returns_a_generator": Misbehaviour(lambda _, __, output: (row for row in output), {UNSUPPORTED}),
    "returns_no_tensor": Misbehaviour(lambda *_: object(), {UNSUPPORTED}),
    "returns_2000_nested_lists": Misbehaviour(
        lambda _, __, output: reduce(lambda inner, _: [inner], range(2000), output), {MEASURED, UNSUPPORTED}
    ),
    "returns_a_cycle": Misbehaviour(_returns_a_cycle, {MEASURED, UNSUPPORTED}),
    "returns_its_input": Misbehaviour(lambda _, values, output: (values, output), {MEASURED}),
    "changes_its_input": Misbehaviour(lambda _, values, output: values.mul_(2) * 0 + output, {MEASURED}),
    "is_complex": Misbehaviour(lambda _, __, output: torch.complex(output, output), {MEASURED}),
    "is_sparse": Misbehaviour(lambda _, __, output: output.to_sparse(), {MEASURED, UNSUPPORTED}),
    "is_quantized": Misbehaviour(
        lambda _, __, output: torch.quantize_per_tensor(output.detach(), 0.1, 0, torch.qint8), {MEASURED, UNSUPPORTED, BROKEN}
    ),
    "is_lazy": Misbehaviour(lambda *_: None, {MEASURED}),
    "cannot_be_copied": Misbehaviour(lambda *_: None, {MEASURED, UNSUPPORTED}),
    "has_20000_parameters_with_hostile_names": Misbehaviour(lambda *_: None, {MEASURED}),
}


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    model: Any = Model(MISBEHAVIOURS[name].call)
    if name == "is_lazy":
        model.layer = nn.LazyLinear(8)
    elif name == "cannot_be_copied":
        model.lock = threading.Lock()
    elif name.startswith("has_20000"):
        for number in range(20_000):
            model.register_parameter(f"\x1b[31m\n<script>{number}", nn.Parameter(torch.zeros(1)))
    return model, torch.ones(4, 8)


def __getattr__(name: str) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    """A function of this module for each, as `--model` names them."""
    if name in MISBEHAVIOURS:
        return lambda: built(name)
    raise AttributeError(name)
