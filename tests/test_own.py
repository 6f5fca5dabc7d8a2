"""A user's function is found, called and checked; whatever is wrong with it is said with its file and what was expected."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.failure import Failure
from benchmarks.models import probe
from benchmarks.models.own import ModelError, load
from benchmarks.models.workload import Workload

LINEAR = "    return nn.Linear(3, 2), torch.ones(4, 3)\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder the user works in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


def write(body: str, path: str = "model.py") -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"import torch\nfrom torch import nn\n{body}")


def build(size: str = "tiny") -> Workload:
    return load("model.py:build").workload(size)


def refusal(spec: str) -> str:
    """The message with which `spec` is refused."""
    with pytest.raises(ModelError) as caught:
        load(spec).workload("tiny")
    return str(caught.value)


def test_a_function_in_a_file_is_found_by_its_path_and_imports_the_files_neighbours(folder: Path) -> None:
    write("WIDTH = 6\n", "deep/neighbour_of_model.py")
    body = "from neighbour_of_model import WIDTH\ndef build():\n    return nn.Linear(WIDTH, 1), torch.ones(1, WIDTH)\n"
    write(body, "deep/model.py")
    for spec in (f"{folder}/deep/model.py:build", "deep/model.py:build"):
        assert load(spec).workload("tiny").facts().parameters == 7


def test_a_function_in_a_package_is_found_by_its_import_name() -> None:
    write("", "shop/__init__.py")
    write("WIDTH = 5\n", "shop/width.py")
    body = "from shop.width import WIDTH\ndef build(size):\n    return nn.Linear(WIDTH, 2), torch.ones(1, WIDTH)\n"
    write(body, "shop/model.py")
    assert load("shop.model:build").workload("tiny").facts().inputs == ["float32[1, 5]"]


@pytest.mark.parametrize("signature", ["size", "size='medium'", "*, size", "size, width=3"])
def test_size_is_passed_to_a_function_that_takes_it(signature: str) -> None:
    write(f"def build({signature}):\n    n = {{'tiny': 1, 'large': 9}}[size]\n    return nn.Linear(n, n), torch.ones(n, n)\n")
    assert load("model.py:build").sized
    assert [build(size).facts().parameters for size in ("tiny", "large")] == [2, 90]


@pytest.mark.parametrize("signature", ["", "width=3", "*args, **kwargs"])
def test_a_function_that_needs_nothing_is_called_with_nothing(signature: str) -> None:
    write(f"def build({signature}):\n{LINEAR}")
    assert not load("model.py:build").sized
    assert build().facts().parameters == 8


def test_a_file_may_define_dataclasses_under_postponed_annotations(folder: Path) -> None:
    (folder / "model.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport torch\nfrom torch import nn\n"
        "@dataclass(slots=True)\nclass Out:\n    logits: torch.Tensor\n    count: int = 0\n"
        "class Net(nn.Linear):\n    def forward(self, x):\n        return Out(super().forward(x))\n"
        "def build():\n    return Net(3, 2), torch.ones(1, 3)\n"
    )
    workload = build()
    assert workload.run(workload.module).logits.shape == (1, 2)


def test_a_users_model_is_the_same_every_time_and_stays_in_the_mode_that_it_was_built_in() -> None:
    write("def build():\n    return nn.Linear(3, 2).train(), torch.randn(4, 3)\n")
    first, second = build(), build()
    assert torch.equal(first.module.weight, second.module.weight)  # type: ignore[arg-type]
    assert torch.equal(first.args[0], second.args[0])
    assert first.module.training


def test_a_lazy_module_has_its_parameters_the_same_every_time() -> None:
    write("def build():\n    return nn.LazyLinear(2), torch.ones(4, 3)\n")
    first, second = build(), build()
    assert first.facts().parameters == 8
    assert torch.equal(first.module.weight, second.module.weight)  # type: ignore[arg-type]


def test_a_module_without_parameters_will_do_where_an_input_requires_grad() -> None:
    write("def build():\n    return nn.ReLU(), (torch.ones(1, requires_grad=True), 3)\n")
    assert build().args[0].requires_grad


def test_running_out_of_memory_while_building_is_not_blamed_on_the_function() -> None:
    write("def build():\n    raise MemoryError\n")
    with pytest.raises(MemoryError):
        build()


def test_where_nothing_can_be_tracked_that_is_no_fault_of_the_function_but_it_is_told_before_anything_is_planned() -> None:
    write("def build():\n    return nn.ReLU(), torch.ones(1)\n")
    with pytest.raises(
        Failure, match="the module has no parameters and no input requires grad; there is nothing to track"
    ) as caught:
        build()
    assert caught.value.status == "unsupported"
    assert str(probe("model.py:build", "tiny").fault) == str(caught.value)


SHAPE = "expected a function of no arguments, or of `size`, that returns (module, inputs)"
WRONG_FUNCTIONS = {
    "raises": ("def build():\n    raise ValueError('no weights here')\n", ["ValueError: no weights here", "model.py:4"]),
    "leaves the program": ("def build():\n    raise SystemExit(3)\n", ["SystemExit: 3"]),
    "never ends": ("def build():\n    return build()\n", ["RecursionError: maximum recursion depth"]),
    "needs another argument": ("def build(width):\n    pass\n", ["(width)", SHAPE]),
    "cannot take size by name": ("def build(size, /):\n    pass\n", ["takes (size)", SHAPE]),
    "is no function": ("build = 3\n", ["not a function", SHAPE]),
    "is not there": ("def make():\n    pass\ndef other():\n    pass\n", ["no such function", "make, other", SHAPE]),
    "returns None": ("def build():\n    pass\n", ["NoneType", SHAPE]),
    "swaps module and inputs": ("def build():\n    return torch.ones(1), nn.Linear(1, 1)\n", ["Tensor as the module", SHAPE]),
    "has a list as inputs": ("def build():\n    return nn.Linear(1, 1), [torch.ones(1)]\n", ["list", "tensor", "tuple", "dict"]),
    "has inputs that hold themselves": ("def build():\n    x = []\n    x.append(x)\n    return nn.Linear(1, 1), (x,)\n", ["itself"]),
    "lies in a file that raises": ("1 / 0\n", ["ZeroDivisionError", "model.py:3"]),
    "lies in a file with a syntax error": ("def build(:\n", ["SyntaxError", "line 3"]),
    "lies in a file that imports what is not there": ("import no_such_module\n", ["no_such_module", "model.py:3"]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "parts"), WRONG_FUNCTIONS.values(), ids=WRONG_FUNCTIONS)
@pytest.mark.parametrize("spec", ["package/model.py:build", "package.model:build"])
def test_a_function_is_refused_with_its_file_and_what_was_expected_if_it(spec: str, body: str, parts: list[str]) -> None:
    write("", "package/__init__.py")
    write(body, "package/model.py")
    message = refusal(spec)
    assert [part for part in (spec, *parts) if part not in message] == []
    assert "\n" not in message


def test_what_is_not_there_is_named_with_where_it_was_looked_for(folder: Path) -> None:
    message = refusal("missing/model.py:build")
    assert [part for part in ("missing/model.py:build", "no file", str(folder)) if part not in message] == []
    assert "no module no_such_package " in refusal("no_such_package.model:build")
    write("def build():\n    pass\n", "project/model.py")
    assert "a file is named with its .py" in refusal("project/model:build")
    assert refusal("builtins:dict").startswith("builtins:dict: ")


@pytest.mark.parametrize("spec", ["", "model.py", ":build", "model.py:", "model.py:1st", "model.py:a.b", "model.py:build()"])
def test_a_malformed_spec_is_refused_with_the_two_forms(spec: str) -> None:
    assert refusal(spec).startswith(f"--model {spec}: expected path/to/file.py:function or package.module:function")
