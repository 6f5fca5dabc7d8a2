"""The user's own model: `path/to/file.py:function` or `package.module:function`, returning `(module, inputs)`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from benchmarks.failure import describe, is_out_of_memory
from benchmarks.models.workload import Workload, seeded
from benchmarks.models.workload import tensors

EXPECTED = "expected a function of no arguments, or of `size`, that returns (module, inputs)"

_MOST_NAMES = 8


class ModelError(Exception):
    """What is wrong with the user's model: names the file and says what was expected."""


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A user's function, imported. `sized` says whether it takes `size`."""

    spec: str
    function: Callable[..., Any]

    @property
    def sized(self) -> bool:
        return "size" in inspect.signature(self.function).parameters

    def workload(self, size: str, device: str = "cpu") -> Workload:
        """Calls the function, with the random generators at their start; `size` is passed where it is taken.

        Raises ModelError if it returns something else than a module with parameters and its inputs, or if it raises.
        """
        try:
            with seeded(0, device):
                returned = self.function(size=size) if self.sized else self.function()
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{self.spec}: the function raised {describe(error)}; {EXPECTED}") from error
        if not (isinstance(returned, tuple) and len(returned) == 2):
            what = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
            raise ModelError(f"{self.spec}: the function returned {what}; {EXPECTED}")
        module, inputs = returned
        if not isinstance(module, nn.Module):
            raise ModelError(f"{self.spec}: the function returned {type(module).__name__} as the module; {EXPECTED}")
        if next(module.parameters(), None) is None:
            raise ModelError(f"{self.spec}: the module has no parameters, so there is nothing to track; expected at least one")
        try:
            workload = Workload.of(module, inputs)
            list(workload.input_tensors())
        except TypeError as error:
            raise ModelError(f"{self.spec}: {error}") from error
        return workload


def check_output(spec: str, output: Any) -> None:
    """Raises ModelError unless `output` holds at least one tensor and nothing but tensors, containers and plain values."""
    expected = "expected tensors, or tuples, lists, dicts or dataclasses of tensors"
    try:
        found = list(tensors(output))
    except TypeError as error:
        raise ModelError(f"{spec}: the model's output does not suit: {error}") from error
    if not found:
        raise ModelError(f"{spec}: the model's output is {type(output).__name__} without a tensor; {expected}")


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
    module = _module_at(spec, place)
    function = getattr(module, name, None)
    if not callable(function):
        found = "it is not a function" if hasattr(module, name) else "there is no such function"
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        more = ", ..." if len(defined) > _MOST_NAMES else ""
        offered = f" (defined there: {', '.join(defined[:_MOST_NAMES])}{more})" if defined else ""
        raise ModelError(f"{spec}: {found} in {place}{offered}; {EXPECTED}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise ModelError(f"{spec}: {error}; {EXPECTED}") from error
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if set(needed) - {"size"} or any(p.name == "size" and p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise ModelError(f"{spec}: the function takes ({', '.join(needed)}); {EXPECTED}")
    return OwnModel(spec, function)


def _module_at(spec: str, place: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix == ".py":
            return _import_file(spec, path)
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            hint = "; a file is named with its .py" if "/" in place or Path(f"{place}.py").is_file() else ""
            raise ModelError(f"{spec}: there is no module {error.name} on the import path{hint}") from error
        raise ModelError(f"{spec}: importing {place} raised {describe(error)}") from error
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{spec}: importing {place} raised {describe(error)}") from error


def _import_file(spec: str, path: Path) -> ModuleType:
    """Runs the file as a module of its own, with its folder importable, as `python path` would have it."""
    if not path.is_file():
        raise ModelError(f"{spec}: there is no file {path} (looked in {Path.cwd()})")
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
