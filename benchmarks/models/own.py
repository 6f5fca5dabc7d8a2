"""The user's own model: `path/to/file.py:function` or `package.module:function`, returning `(module, inputs)`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from benchmarks.failure import Failure, describe, is_out_of_memory
from benchmarks.models.workload import Workload, seeded

EXPECTED = "expected a function of no arguments, or of `size`, that returns (module, inputs)"


class ModelError(Exception):
    """What is wrong with the user's model: names the file and says what was expected."""


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A user's function, imported. `sized` says whether it takes `size`."""

    spec: str
    function: Callable[..., Any]
    sized: bool

    def workload(self, size: str, device: str = "cpu") -> Workload:
        """Calls the function, with the random generators of the CPU and `device` at their start.

        Raises ModelError if the function raises, or returns something else than a module and its inputs, and Failure where nothing of
        these can be tracked.
        """
        with seeded(0, device), blamed(self.spec, "the function"):
            returned = self.function(size=size) if self.sized else self.function()
        if not (isinstance(returned, tuple) and len(returned) == 2):
            kind = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
            raise ModelError(f"{self.spec}: the function returned {kind}; {EXPECTED}")
        module, inputs = returned
        if not isinstance(module, nn.Module):
            raise ModelError(f"{self.spec}: the function returned {type(module).__name__} as the module; {EXPECTED}")
        try:
            workload = Workload.of(module, inputs)
            trackable = [*module.parameters(), *(tensor for tensor in workload.input_tensors() if tensor.requires_grad)]
        except TypeError as error:
            raise ModelError(f"{self.spec}: {error}") from error
        if any(map(is_lazy, trackable)):  # its shapes are known once it was called
            with seeded(0, device), blamed(self.spec, "the first call of a lazy module"), torch.no_grad():
                workload.run(module)
        if not trackable:
            reason = "the module has no parameters and no input requires grad; there is nothing to track"
            raise Failure("unsupported", f"{self.spec}: {reason}")
        return workload


def name_of(spec: str) -> str:
    """The model's name in results: the function's name. Raises ModelError if `spec` is not FILE.py:FUNCTION or MODULE:FUNCTION."""
    place, separator, function = spec.rpartition(":")
    if not (separator and place and function.isidentifier()):
        raise ModelError(f"--model {spec}: expected path/to/file.py:function or package.module:function")
    return function


def load(spec: str) -> OwnModel:
    """Imports the function that `spec` names. Raises ModelError if it is not there or takes something else than `size`."""
    name = name_of(spec)
    place = spec.removesuffix(f":{name}")
    with blamed(spec, f"importing {place}"):
        module = _module_at(place)
    function = getattr(module, name, None)
    if not callable(function):
        fault = "it is not a function" if hasattr(module, name) else "there is no such function"
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        offered = f" (defined there: {', '.join(defined[:8])})" if defined else ""
        raise ModelError(f"{spec}: {fault} in {place}{offered}; {EXPECTED}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ModelError(f"{spec}: {error}; {EXPECTED}") from error
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if set(needed) - {"size"} or any(p.name == "size" and p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise ModelError(f"{spec}: the function takes ({', '.join(needed)}); {EXPECTED}")
    return OwnModel(spec, function, sized=any(p.name == "size" for p in parameters))


@contextmanager
def blamed(spec: str, action: str) -> Iterator[None]:
    """Whatever the user's code raises becomes a ModelError of `spec`, leaving the program and endless recursion included; but for memory."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{spec}: {error}") from error
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{spec}: {action} raised {describe(error)}") from error


def _module_at(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py":
        return _import_file(path)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if not (error.name and f"{place}.".startswith(f"{error.name}.")):
            raise
        hint = "; a file is named with its .py" if "/" in place or Path(f"{place}.py").is_file() else ""
        raise ModelError(f"there is no module {error.name} on the import path{hint}") from error


def _import_file(path: Path) -> ModuleType:
    """Runs the file as a module of its own, with its folder importable, as `python path` would have it."""
    if not path.is_file():
        raise ModelError(f"there is no file {path} (looked in {Path.cwd()})")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"gradtax_own_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
